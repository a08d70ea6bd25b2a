"""Status and verify: they say what is there, and find what is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_runs import (
    N_SHARDS,
    SHAPE,
    interpolated,
    receipt_files,
    shard_file,
    small_run,
    stored,
    write_source,
)

from vemdiffuse_pipe.config import RunFile
from vemdiffuse_pipe.errors import OutputError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.monitor.status import status
from vemdiffuse_pipe.monitor.tally import rate
from vemdiffuse_pipe.records.segments import encode
from vemdiffuse_pipe.running.reconstruct import prepare, run
from vemdiffuse_pipe.running.verify import verify
from vemdiffuse_pipe.storage import open_sink
from vemdiffuse_pipe.testing import position_coded

N_VOXELS = 31 * 37 * 53


@pytest.fixture
def complete(tmp_path: Path) -> RunFile:
    run_file = small_run(tmp_path)
    run(run_file)
    return run_file


def first_shard(run_file: RunFile) -> Box:
    _, plan = prepare(run_file)
    return plan.shards.box(0)


def test_a_complete_output_is_good(complete: RunFile) -> None:
    found = verify(complete.output.url)
    assert found.is_good
    assert (found.n_shards, found.n_missing, found.wrong) == (N_SHARDS, 0, ())
    assert (found.n_rendered, found.n_different) == (3, 0)


def test_one_changed_voxel_is_found(complete: RunFile) -> None:
    sink, box = open_sink(complete.output.url), first_shard(complete)
    voxels = sink.read("em", box)
    voxels[3, 5, 7] ^= 1
    sink.write("em", box, voxels)
    found = verify(complete.output.url)
    assert (found.is_good, found.wrong, found.n_missing) == (False, (box,), 0)


@pytest.mark.parametrize("position", [8, 500, -100])
def test_one_flipped_byte_of_a_stored_shard_is_found(complete: RunFile, position: int) -> None:
    path = shard_file(complete, 0, 0, 0)
    stored = bytearray(path.read_bytes())
    stored[position] ^= 0x10
    path.write_bytes(stored)
    assert verify(complete.output.url).wrong == (first_shard(complete),)


def test_a_deleted_shard_is_found(complete: RunFile) -> None:
    shard_file(complete, 0, 0, 0).unlink()
    found = verify(complete.output.url)
    assert (found.is_good, found.wrong) == (False, (first_shard(complete),))


def test_a_truncated_shard_is_found(complete: RunFile) -> None:
    path = shard_file(complete, 0, 0, 0)
    path.write_bytes(path.read_bytes()[:-20])
    assert verify(complete.output.url).wrong == (first_shard(complete),)


def test_a_missing_receipt_is_found(complete: RunFile) -> None:
    (segment,) = receipt_files(complete)
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(lines[1:]))
    found = verify(complete.output.url)
    assert (found.is_good, found.n_missing, found.wrong) == (False, 2, ())


def test_a_receipt_that_another_one_corrects_does_no_harm(complete: RunFile) -> None:
    """On a GPU a block that was rendered twice may differ by a grey level: the last one written is stored."""
    (segment,) = receipt_files(complete)
    line = segment.read_bytes().splitlines()[0]
    record = json.loads(line)
    del record["check"]
    record["checksums"] = {"em": ["0" * 32, "0" * 32]}
    segment.with_name("a.jsonl").write_bytes(encode(record))
    assert verify(complete.output.url).is_good
    segment.with_name("a.jsonl").rename(segment.with_name("z.jsonl"))
    assert verify(complete.output.url).is_good


def test_a_source_that_changed_is_found_by_rendering_again(complete: RunFile, tmp_path: Path) -> None:
    changed = write_source(tmp_path / "changed", position_coded(SHAPE) // 2)
    Path(complete.source.url).parent.rename(tmp_path / "away")
    Path(changed).parent.rename(tmp_path / "source.zarr")
    found = verify(complete.output.url, n_rendered=4)
    assert (found.is_good, found.wrong, found.n_rendered, found.n_different) == (False, (), 4, 4)


def test_what_is_wrong_is_repaired_where_asked(complete: RunFile) -> None:
    shard_file(complete, 1, 0, 0).unlink()
    damaged = shard_file(complete, 0, 1, 2)
    damaged.write_bytes(damaged.read_bytes()[:-9])
    assert len(verify(complete.output.url).wrong) == 2
    assert verify(complete.output.url, repair=True).is_good
    assert verify(complete.output.url).is_good
    np.testing.assert_array_equal(stored(complete), interpolated(position_coded(SHAPE), 5))


def test_places_are_chosen_by_the_seed(complete: RunFile, monkeypatch: pytest.MonkeyPatch) -> None:
    from vemdiffuse_pipe.running import verify as module

    places: list[Box] = []
    render_block = module.render_block

    def watched(plan: object, model: object, sections: object, box: Box, *rest: object) -> object:
        places.append(box)
        return render_block(plan, model, sections, box, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "render_block", watched)
    for seed in (1, 1, 2):
        verify(complete.output.url, seed=seed)
    assert places[:3] == places[3:6] != places[6:]


def test_an_output_that_is_not_complete_is_not_good(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    run(run_file, max_blocks=5)
    found = verify(run_file.output.url)
    assert (found.is_good, found.n_missing, found.wrong) == (False, N_SHARDS - 10, ())


def test_an_output_without_a_single_receipt_is_all_missing(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    run(run_file, max_blocks=0)
    found = verify(run_file.output.url)
    assert (found.n_missing, found.n_rendered) == (N_SHARDS, 0)


def test_status_counts_what_is_done(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    run(run_file, max_blocks=5)
    found = status(run_file.output.url)
    assert (found.n_blocks, found.n_blocks_done, found.n_shards, found.n_shards_done) == (24, 5, N_SHARDS, 10)
    _, plan = prepare(run_file)
    by_column = [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1)]  # z first, then x: a source chunk is deep
    done = [plan.blocks.box(z * 6 + x) for z, x in by_column]
    assert found.voxels_done == sum(box.n_voxels for box in done)
    assert (found.voxels_total, found.identity) == (N_VOXELS, plan.identity())
    assert set(found.seconds) == {"read", "render", "write"}
    assert found.voxels_per_s > 0


def test_status_of_a_complete_output_is_complete(complete: RunFile) -> None:
    found = status(complete.output.url)
    assert (found.n_blocks_done, found.voxels_done, found.failed_blocks) == (24, N_VOXELS, ())


def test_status_of_a_run_that_has_not_begun_is_nothing(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    run(run_file, max_blocks=0)
    found = status(run_file.output.url)
    assert (found.n_blocks_done, found.voxels_done, found.voxels_per_s, found.last_receipt) == (
        0,
        0,
        0.0,
        0.0,
    )


def test_the_rate_counts_time_in_which_several_processes_work_once_and_breaks_never() -> None:
    assert rate(100, [(0.0, 10.0), (5.0, 10.0), (90.0, 100.0)]) == 5.0


@pytest.mark.parametrize("command", [status, verify])
def test_what_is_no_output_is_refused(tmp_path: Path, command: object) -> None:
    source = write_source(tmp_path, np.ones((2, 3, 4), np.uint8))
    for url in (str(tmp_path / "nothing"), str(tmp_path), source, str(Path(source).parent)):
        with pytest.raises(OutputError):
            command(url)  # type: ignore[operator]


def test_status_and_verify_need_nothing_but_the_output(complete: RunFile, tmp_path: Path) -> None:
    moved = tmp_path / "moved.zarr"
    Path(complete.output.url).rename(moved)
    assert status(str(moved)).n_blocks_done == 24
    assert verify(str(moved)).is_good
