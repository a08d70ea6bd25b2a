"""Whole runs: what comes out, what running again does, and whose output is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from small_runs import (
    BLOCK,
    N_SHARDS,
    SHAPE,
    interpolated,
    receipt_files,
    small_run,
    stored,
    write_source,
)

from vemdiffuse_pipe import config
from vemdiffuse_pipe.config import RunFile, load
from vemdiffuse_pipe.errors import OutputError, PlanError
from vemdiffuse_pipe.records.events import BlockDone, Event, PlanesDone, RunEnded, RunStarted
from vemdiffuse_pipe.records.folder import records_of
from vemdiffuse_pipe.records.receipts import Receipt, read_receipts
from vemdiffuse_pipe.running.reconstruct import prepare, reconstruct, run
from vemdiffuse_pipe.storage import open_sink, parse_address
from vemdiffuse_pipe.testing import position_coded


def receipts(run_file: RunFile) -> Iterator[Receipt]:
    _, plan = prepare(run_file)
    for _, receipt in read_receipts(records_of(parse_address(run_file.output.url)), plan.digest):
        yield receipt


def receipted_shards(run_file: RunFile) -> list[int]:
    return sorted(shard for receipt in receipts(run_file) for shard in receipt.shards)


@pytest.mark.parametrize("block_shape", [(8, 16, 16), (16, 32, 53), (31, 37, 64)])
def test_linear_output_is_whole_volume_interpolation_whatever_the_block(
    tmp_path: Path, block_shape: tuple[int, int, int]
) -> None:
    run_file = small_run(tmp_path, run={"block_shape": block_shape})
    assert run(run_file).exit_code == 0
    np.testing.assert_array_equal(stored(run_file), interpolated(position_coded(SHAPE), 5))


@pytest.mark.parametrize(("shape", "ratio"), [((5, 31, 23), 3), ((11, 13, 41), 7)])
def test_linear_output_is_whole_volume_interpolation_whatever_the_shape(
    tmp_path: Path, shape: tuple[int, int, int], ratio: int
) -> None:
    run_file = small_run(tmp_path, shape, model={"ratio": ratio})
    run(run_file)
    np.testing.assert_array_equal(stored(run_file), interpolated(position_coded(shape), ratio))


def test_a_run_begun_in_this_process_goes_on_in_three_others(tmp_path: Path) -> None:
    run(small_run(tmp_path), max_blocks=4)
    run_file = small_run(tmp_path, run={"workers": 3, "engine": "local"})
    assert run(run_file).n_rendered == 20
    np.testing.assert_array_equal(stored(run_file), interpolated(position_coded(SHAPE), 5))
    assert len(receipt_files(run_file)) == len({receipt.pid for receipt in receipts(run_file)}) > 2


def test_running_again_renders_nothing(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    assert run(run_file).n_rendered == 24
    again = run(run_file)
    assert (again.n_blocks, again.n_done, again.n_rendered, again.exit_code) == (24, 24, 0, 0)


def test_a_run_that_was_stopped_midway_goes_on_where_it_was(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    first = run(run_file, max_blocks=7)
    assert (first.n_done, first.n_rendered, first.exit_code) == (7, 7, 1)
    second = run(run_file)
    assert (second.n_done, second.n_rendered, second.exit_code) == (24, 17, 0)
    assert receipted_shards(run_file) == list(range(N_SHARDS))


def test_the_block_shape_may_change_between_starts_and_nothing_is_rendered_twice(tmp_path: Path) -> None:
    for block_shape, max_blocks in (((8, 16, 16), 5), ((16, 48, 32), 2), ((8, 32, 64), 2), (BLOCK, None)):
        run_file = small_run(tmp_path, run={"block_shape": block_shape})
        run(run_file, max_blocks=max_blocks)
    assert receipted_shards(run_file) == list(range(N_SHARDS))
    np.testing.assert_array_equal(stored(run_file), interpolated(position_coded(SHAPE), 5))


def test_another_model_on_the_same_output_is_refused_by_name(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    run(run_file, max_blocks=3)
    before = files(run_file)
    with pytest.raises(OutputError, match=r"another run: model linear -> cubic; model_sha256 .* -> "):
        run(small_run(tmp_path, model={"name": "cubic"}))
    assert files(run_file) == before


def test_another_seed_on_the_same_output_is_refused_by_name(tmp_path: Path) -> None:
    model = {"name": "default", "ratio": 3, "samples": 2, "steps": 1}
    small = (2, 19, 23)
    run(small_run(tmp_path, small, model={**model, "seed": 1}), max_blocks=0)
    with pytest.raises(OutputError, match=r"belongs to another run: seed 1 -> 2; choose another output"):
        run(small_run(tmp_path, small, model={**model, "seed": 2}))


def test_another_source_on_the_same_output_is_refused_by_name(tmp_path: Path) -> None:
    run(small_run(tmp_path), max_blocks=1)
    other = write_source(tmp_path / "other", position_coded(SHAPE))
    with pytest.raises(OutputError, match=r"source .*/source.zarr/em -> .*/other/source.zarr/em"):
        run(small_run(tmp_path, source={"url": other}))


def test_other_shards_on_the_same_output_are_refused_by_name(tmp_path: Path) -> None:
    run(small_run(tmp_path), max_blocks=1)
    with pytest.raises(OutputError, match=r"shard_shape \[8, 16, 16\] -> \[8, 32, 32\]"):
        run(small_run(tmp_path, output={"shard_shape": (8, 32, 32)}, run={"block_shape": (8, 32, 32)}))


def test_a_receipt_of_another_run_is_refused_and_not_counted(tmp_path: Path) -> None:
    ours, theirs = small_run(tmp_path), small_run(tmp_path / "b", source={"voxel_size_nm": (40, 8, 8)})
    run(ours, max_blocks=3)
    theirs = small_run(tmp_path, output={"url": str(tmp_path / "theirs.zarr")}, model={"name": "cubic"})
    run(theirs, max_blocks=3)
    foreign = receipt_files(theirs)[0]
    foreign.rename(receipt_files(ours)[0].with_name(foreign.name))
    with pytest.raises(OutputError, match="holds a receipt of run"):
        run(ours)


def test_a_plan_that_does_not_fit_memory_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    run_file = small_run(tmp_path, run={"max_memory_gb": 0.01})
    with pytest.raises(PlanError, match="GB"):
        run(run_file)
    assert not Path(run_file.output.url).exists()


def test_the_listener_hears_of_every_block_once(tmp_path: Path) -> None:
    events: list[Event] = []
    run(small_run(tmp_path), listener=events.append)
    started, *between, ended = events
    done = [event for event in between if isinstance(event, BlockDone)]
    assert isinstance(started, RunStarted)
    assert (started.n_missing, started.n_voxels) == (24, 31 * 37 * 53)
    assert isinstance(ended, RunEnded)
    assert sorted(event.block_index for event in done) == list(range(24))
    assert sum(event.n_voxels for event in done) == 31 * 37 * 53
    assert sum(e.n_voxels for e in between if isinstance(e, PlanesDone)) == 24 * 37 * 53


def test_a_receipt_says_what_the_block_cost(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    run(run_file)
    for receipt in receipts(run_file):
        assert set(receipt.seconds) == {"read", "render", "write"}
        assert receipt.n_attempts == 1
        assert receipt.bytes_read > 0
        assert receipt.peak_bytes > 10**7
        assert list(receipt.checksums) == ["em"]


def test_reconstruct_writes_the_run_file_that_it_ran_beside_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("stack.tif", position_coded(SHAPE))
    options = {"voxel_size_nm": (40, 8, 8), "model": "linear"}
    assert reconstruct("stack.tif", "out.zarr", **options).exit_code == 0  # type: ignore[arg-type]
    monkeypatch.chdir("/")
    run_file = load(tmp_path / "out.zarr.toml")
    assert run(run_file).n_rendered == 0
    np.testing.assert_array_equal(stored(run_file), interpolated(position_coded(SHAPE), 5))


def test_reconstruct_leaves_the_run_file_of_another_run_alone(tmp_path: Path) -> None:
    source, output = write_source(tmp_path, position_coded(SHAPE)), str(tmp_path / "out.zarr")
    reconstruct(source, output, model="linear")
    before = (tmp_path / "out.zarr.toml").read_text()
    with pytest.raises(OutputError, match="model linear -> cubic"):
        reconstruct(source, output, model="cubic")
    assert (tmp_path / "out.zarr.toml").read_text() == before


def test_what_lies_where_the_run_file_goes_is_never_written_over(tmp_path: Path) -> None:
    source, output = write_source(tmp_path, position_coded(SHAPE)), tmp_path / "out.zarr"
    notes = tmp_path / "out.zarr.toml"
    for there in (b"# my precious notes", b"II*\0 a stack", config.dump(small_run(tmp_path)).encode()):
        notes.write_bytes(there)
        with pytest.raises(OutputError, match="something else already"):
            reconstruct(source, str(output), model="linear")
        assert notes.read_bytes() == there
        assert not output.exists()


def test_the_output_describes_its_run(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    run(run_file, max_blocks=0)
    described = open_sink(run_file.output.url).attributes
    _, plan = prepare(run_file)
    assert described["identity"] == plan.identity()
    assert described["digest"] == plan.digest
    assert (described["ratio"], described["anisotropy"], described["uncertainty_step"]) == (5, 1.0, 0.25)


def files(run_file: RunFile) -> dict[str, bytes]:
    """Every file of the output, as it is."""
    root = Path(run_file.output.url)
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}
