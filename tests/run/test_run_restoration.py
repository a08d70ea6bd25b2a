"""Restoration as runs: volumes go through section by section, resume, are verified, and say what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from small_runs import SHAPE, small_run, stored, stored_sha256, write_source

from vemdiffuse_pipe.config import RunFile
from vemdiffuse_pipe.errors import OutputError, SourceError
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.geometry.plane_groups import Provenance
from vemdiffuse_pipe.running.reconstruct import run
from vemdiffuse_pipe.running.verify import verify
from vemdiffuse_pipe.storage import open_sink, open_source
from vemdiffuse_pipe.testing import position_coded


def superres(folder: Path, **tables: dict[str, object]) -> RunFile:
    shards: dict[str, object] = {"chunk_shape": (2, 16, 16), "shard_shape": (2, 16, 16)}
    given: dict[str, dict[str, object]] = {
        "model": {"task": "superres", "name": "linear"},
        "output": shards,
        "run": {"block_shape": (2, 32, 48)},
    }
    return small_run(folder, **{**given, **tables})


def test_a_doubled_volume_is_scipys_of_its_sections_and_lies_where_they_lie(tmp_path: Path) -> None:
    outcome = run(run_file := superres(tmp_path))
    assert outcome.exit_code == 0
    y, x = (np.arange(2 * n) / 2 - 0.25 for n in SHAPE[1:])
    at = np.meshgrid(y, x, indexing="ij")
    sections = position_coded(SHAPE).astype(float)
    expected = np.stack([map_coordinates(s, at, order=1, mode="mirror") for s in sections])
    assert np.array_equal(stored(run_file), to_grey(expected))
    before = open_source(run_file.source.url).spec.frame
    after = open_source(f"{run_file.output.url}/em").spec.frame
    assert after == before.refined_yx(2)
    assert after.corner_nm == before.corner_nm
    assert set(open_sink(run_file.output.url).provenance) == {Provenance.RESTORED}


def test_a_run_that_was_stopped_goes_on_to_the_same_volume_and_is_verified(tmp_path: Path) -> None:
    run_file = superres(tmp_path)
    assert run(run_file, max_blocks=5).exit_code != 0
    assert run(run_file).exit_code == 0
    whole = superres(
        tmp_path, output={"url": str(tmp_path / "b"), "chunk_shape": (2, 16, 16), "shard_shape": (2, 16, 16)}
    )
    assert (
        run(
            whole.model_copy(update={"run": small_run(tmp_path, run={"block_shape": (8, 80, 112)}).run})
        ).exit_code
        == 0
    )
    assert stored_sha256(run_file) == stored_sha256(whole)
    assert verify(run_file.output.url).is_good


def test_another_task_on_the_same_output_is_refused(tmp_path: Path) -> None:
    run(small_run(tmp_path, model={"task": "denoise", "name": "gaussian"}))
    with pytest.raises(OutputError, match="task"):
        run(small_run(tmp_path))


def test_a_single_section_is_enough(tmp_path: Path) -> None:
    write_source(tmp_path, position_coded((1, 20, 30)))
    run_file = superres(tmp_path)
    assert run(run_file).exit_code == 0
    assert stored(run_file).shape == (1, 40, 60)


def test_a_black_section_is_named_or_left_out(tmp_path: Path) -> None:
    sections = position_coded(SHAPE)
    sections[2] = 0
    write_source(tmp_path, sections)
    model: dict[str, object] = {"task": "denoise", "name": "gaussian"}
    with pytest.raises(SourceError, match="2"):
        run(small_run(tmp_path, model=model))
    source: dict[str, object] = {"url": str(tmp_path / "source.zarr" / "em"), "bad_sections": "bridge"}
    run_file = small_run(tmp_path, model=model, source=source)
    assert run(run_file).exit_code == 0
    codes = open_sink(run_file.output.url).provenance
    assert np.flatnonzero(codes != Provenance.RESTORED).tolist() == [2]
    assert codes[2] == Provenance.MISSING
    assert not stored(run_file)[2].any()
