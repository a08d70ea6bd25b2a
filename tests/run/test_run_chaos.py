"""A few of the runs of chaos.py, which kills a hundred: what is done survives, and little is done twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos import CREDENTIALS, run_trial
from servers import s3

pytestmark = pytest.mark.slow
CAN_MOUNT = os.geteuid() == 0


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3() as url:
        yield url


@pytest.mark.parametrize(
    ("engine", "place", "seed"),
    [
        pytest.param("threads", "full disk", 1, marks=pytest.mark.skipif(not CAN_MOUNT, reason="needs root")),
        ("local", "s3", 2),
        ("parts", "disk", 3),
        ("parts", "s3", 4),
    ],
)
def test_a_run_that_is_killed_loses_nothing_and_does_little_twice(
    tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch, engine: str, place: str, seed: int
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    result = run_trial(tmp_path, engine, place, endpoint, seed)
    assert result.is_good, result
