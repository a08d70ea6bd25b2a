"""The run files in workflows/: each parses, and its plan reads as it did. Data of the same shape stand in.

After a change that is meant, write the plans anew: GOLDEN=write pytest tests/cli/test_cli_workflows.py
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from small_volumes import Ended

from vemdiffuse_pipe import config
from vemdiffuse_pipe.storage.catalogue import datasets

WORKFLOWS = Path(__file__).parents[2] / "workflows"
GOLDEN = Path(__file__).parent / "golden"

SHAPES = {
    "laptop": (50, 1024, 1024),
    "drosophila_vnc_sstem": (20, 1024, 736),
    "isbi2012_sstem": (30, 512, 368),
    "fib25_dropped": (20, 520, 520),
    "denoise": (50, 1024, 1024),
    "superres": (50, 1024, 1024),
    "slurm": (50, 1024, 1024),
    "lsf": (50, 1024, 1024),
    "pbs": (50, 1024, 1024),
    "sge": (50, 1024, 1024),
}


def test_every_run_file_has_a_shape_here_or_is_of_a_public_volume() -> None:
    others = ("compare_", "train_")  # files of other commands
    names = {path.stem for path in WORKFLOWS.glob("*.toml") if not path.stem.startswith(others)}
    assert names == {*SHAPES, *datasets()}


@pytest.mark.parametrize("name", SHAPES)
def test_a_run_file_says_the_same_when_written_out(name: str) -> None:
    run_file = config.load(WORKFLOWS / f"{name}.toml")
    assert config.parse(tomllib.loads(config.dump(run_file))) == run_file


@pytest.mark.parametrize("name", SHAPES)
def test_the_plan_reads_as_it_did(
    here: Path, vemdiffuse: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)  # a machine of two cores
    source = Path(config.load(WORKFLOWS / f"{name}.toml").source.url)
    source.parent.mkdir(exist_ok=True)
    tifffile.imwrite(source, np.zeros(SHAPES[name], np.uint8), photometric="minisblack", compression="zlib")
    ended = vemdiffuse("plan", WORKFLOWS / f"{name}.toml")
    assert ended.code == 0, ended.stderr
    plan = ended.stdout.replace(f"{here}/", "")
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("GOLDEN") == "write":
        golden.write_text(plan)
    assert plan == golden.read_text()
