"""Nothing but the identity changes a voxel, through the whole pipeline and with the embedded model."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import small_run, stored_sha256

from vemdiffuse_pipe.running.reconstruct import run

DIFFUSION = {"name": "default", "samples": 2, "steps": 2, "tile_px": 32, "overlap_px": 8, "seed": 7}
WAYS: dict[str, dict[str, object]] = {
    "the whole volume is one block": {"block_shape": (32, 48, 64)},
    "blocks of one shard": {"block_shape": (8, 16, 16)},
    "batches of three tiles": {"tile_batch": 3},
    "three threads": {"threads": 3},
    "two processes": {"workers": 2, "engine": "local"},
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """sha256 of the decoded output of the plainest run."""
    run_file = small_run(tmp_path_factory.mktemp("plain"), model=DIFFUSION)
    assert run(run_file).exit_code == 0
    return stored_sha256(run_file)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_way_of_working_changes_no_voxel(expected: str, way: str, tmp_path: Path) -> None:
    run_file = small_run(tmp_path, model=DIFFUSION, run=WAYS[way])
    assert run(run_file).exit_code == 0
    assert stored_sha256(run_file) == expected


@pytest.mark.slow
def test_another_seed_gives_another_volume(expected: str, tmp_path: Path) -> None:
    run_file = small_run(tmp_path, model={**DIFFUSION, "seed": 8})
    assert run(run_file).exit_code == 0
    assert stored_sha256(run_file) != expected
