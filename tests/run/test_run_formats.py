"""The same voxels in every format of the output, on a disk and in a bucket, whoever writes beside whom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from servers import BUCKET, s3
from small_runs import SHAPE, interpolated, small_run, stored

from vemdiffuse_pipe.config import RunFile
from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.running.reconstruct import prepare, run
from vemdiffuse_pipe.running.verify import verify
from vemdiffuse_pipe.storage import open_source
from vemdiffuse_pipe.testing import position_coded

TRUTH = interpolated(position_coded(SHAPE), 5)
SHAPES = {
    "ome-zarr-0.5": {"chunk_shape": (4, 8, 8), "shard_shape": (8, 16, 16)},
    "ome-zarr-0.4": {"chunk_shape": (8, 16, 16), "shard_shape": None},
    "n5": {"chunk_shape": (8, 16, 16), "shard_shape": None},
    "precomputed": {"chunk_shape": (4, 8, 8), "shard_shape": (8, 16, 16)},
}


def formatted_run(folder: Path, name: str, url: str = "", **table: object) -> RunFile:
    output = {"url": url or str(folder / name), "format": name, **SHAPES[name]}
    return small_run(folder, output=output, run=table)


@pytest.mark.parametrize("name", SHAPES)
def test_every_format_holds_the_same_voxels_after_an_interruption(tmp_path: Path, name: str) -> None:
    run_file = formatted_run(tmp_path, name, block_shape=(8, 32, 32))
    assert run(run_file, max_blocks=5).n_rendered == 5
    assert run(run_file).exit_code == 0
    np.testing.assert_array_equal(stored(run_file), TRUTH)
    assert verify(run_file.output.url).is_good
    source = open_source(f"{run_file.output.url}/em")
    np.testing.assert_array_equal(source.read(source.spec.frame.box), TRUTH)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_two_processes_write_beside_each_other(tmp_path: Path, name: str) -> None:
    run_file = formatted_run(tmp_path, name, block_shape=(8, 16, 16), workers=2, engine="local")
    assert run(run_file).exit_code == 0
    np.testing.assert_array_equal(stored(run_file), TRUTH)


def test_every_format_is_written_into_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with s3() as endpoint:
        for name in SHAPES:
            run_file = formatted_run(tmp_path, name, f"s3+{endpoint}/{BUCKET}/{name}")
            assert run(run_file).exit_code == 0
            np.testing.assert_array_equal(stored(run_file), TRUTH)


def test_a_shard_that_the_format_cannot_have_is_refused_with_the_nearest(tmp_path: Path) -> None:
    output = {"format": "precomputed", "chunk_shape": (4, 8, 8), "shard_shape": (4, 32, 8)}
    with pytest.raises(PlanError, match=r"nearest: \(4, 16, 16\)"):
        prepare(small_run(tmp_path, output=output))
    with pytest.raises(PlanError, match="n5 has no shards"):
        prepare(small_run(tmp_path, output={**output, "format": "n5"}))
