"""Sources that fail, disks that fill: nothing is lost, and nothing pretends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from small_runs import SHAPE, interpolated, small_run, stored, write_source

from vemdiffuse_pipe.config import RunFile, dump
from vemdiffuse_pipe.errors import CorruptDataError, InputError, MissingDataError, StorageFullError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.monitor.status import status
from vemdiffuse_pipe.records.events import AttemptFailed, BlockMarkedFailed, Event, FailedBlock, Outcome
from vemdiffuse_pipe.running.execution import run_plan
from vemdiffuse_pipe.running.reconstruct import prepare, retry, run
from vemdiffuse_pipe.storage.retry import RetryPolicy
from vemdiffuse_pipe.storage.sink import StoredSink
from vemdiffuse_pipe.testing import Failure, FlakySource, position_coded

HASTY = RetryPolicy(base_s=0.001)
TRUTH = interpolated(position_coded(SHAPE), 5)

# Blocks are 8 x 16 x 32 of 31 x 37 x 53: 4 x 3 x 2. The last rows of the last section are read by two blocks.
LAST_ROWS = Box((6, 36, 0), (7, 37, 53))
READ_BY = [22, 23]


def run_with(run_file: RunFile, failures: Sequence[Failure], events: list[Event] | None = None) -> Outcome:
    source, plan = prepare(run_file)
    heard = events if events is not None else []
    return run_plan(plan, FlakySource(source, failures), listener=heard.append, retry_policy=HASTY)


def test_a_transient_failure_is_tried_again_and_counted(tmp_path: Path) -> None:
    run_file, events = small_run(tmp_path, run={"block_shape": (8, 16, 64)}), list[Event]()
    outcome = run_with(run_file, [Failure(LAST_ROWS, times=3)], events)
    assert (outcome.exit_code, outcome.failed_blocks) == (0, ())
    assert [event.attempt for event in events if isinstance(event, AttemptFailed)] == [1, 2, 3]
    assert status(run_file.output.url).n_attempts_failed == 3
    np.testing.assert_array_equal(stored(run_file), TRUTH)


def test_a_failure_that_stays_transient_is_marked_failed_after_four_attempts(tmp_path: Path) -> None:
    run_file, events = small_run(tmp_path), list[Event]()
    outcome = run_with(run_file, [Failure(LAST_ROWS, times=10**6)], events)
    assert outcome.exit_code == 1
    assert [(b.block_index, b.n_attempts) for b in sorted_blocks(outcome)] == [(i, 4) for i in READ_BY]
    assert sorted(e.block.block_index for e in events if isinstance(e, BlockMarkedFailed)) == READ_BY


@pytest.mark.parametrize("error", [MissingDataError, CorruptDataError])
def test_a_permanent_failure_sets_its_blocks_aside_and_the_run_goes_on(
    tmp_path: Path, error: type[MissingDataError]
) -> None:
    run_file = small_run(tmp_path)
    outcome = run_with(run_file, [Failure(LAST_ROWS, times=10**6, error=error)])
    assert (outcome.n_done, outcome.exit_code) == (22, 1)
    assert [(b.block_index, b.n_attempts) for b in sorted_blocks(outcome)] == [(i, 2) for i in READ_BY]
    assert all(b.reason.startswith(f"{error.__name__}: ") for b in outcome.failed_blocks)


def test_status_lists_failed_blocks(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    outcome = run_with(run_file, [Failure(LAST_ROWS, times=10**6, error=MissingDataError)])
    found = status(run_file.output.url)
    assert list(found.failed_blocks) == sorted_blocks(outcome)
    assert (found.n_blocks_done, found.n_blocks) == (22, 24)


def test_a_rerun_skips_failed_blocks_and_retry_retries_them(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    outcome = run_with(run_file, [Failure(LAST_ROWS, times=10**6, error=MissingDataError)])
    again = run(run_file)
    assert (again.n_rendered, again.exit_code) == (0, 1)
    assert list(again.failed_blocks) == sorted_blocks(outcome)
    taken_up = retry(run_file.output.url)
    assert (taken_up.n_rendered, taken_up.exit_code, taken_up.failed_blocks) == (2, 0, ())
    np.testing.assert_array_equal(stored(run_file), TRUTH)
    assert status(run_file.output.url).failed_blocks == ()


def test_failed_blocks_are_skipped_while_the_rest_goes_on(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    source, plan = prepare(run_file)
    first_rows = Failure(Box((0, 0, 0), (1, 1, 53)), times=10**6, error=MissingDataError)
    begun = run_plan(plan, FlakySource(source, [first_rows]), max_blocks=8, retry_policy=HASTY)
    n_lost = len(begun.failed_blocks)
    assert (begun.n_done + n_lost, n_lost) == (8, 2)
    again = run(run_file)
    assert (again.n_rendered, again.n_done, again.exit_code) == (16, 24 - n_lost, 1)
    assert retry(run_file.output.url).n_rendered == n_lost


def test_an_unforeseen_failure_marks_its_block_failed_with_its_name(tmp_path: Path) -> None:
    bug = Failure(LAST_ROWS, times=10**6, error=ZeroDivisionError)
    outcome = run_with(small_run(tmp_path), [bug])
    assert {block.reason.partition(":")[0] for block in outcome.failed_blocks} == {"ZeroDivisionError"}
    assert (outcome.n_done, len(outcome.failed_blocks)) == (22, 2)


def test_a_block_shape_changed_after_setting_aside_leaves_only_the_lost_shards_out(tmp_path: Path) -> None:
    lost = Failure(LAST_ROWS, times=10**6, error=MissingDataError)
    run_with(small_run(tmp_path), [lost])
    run_file = small_run(tmp_path, run={"block_shape": (31, 37, 53)})
    again = run_with(run_file, [lost])
    assert (again.n_blocks, again.n_rendered, len(again.failed_blocks)) == (1, 0, 2)
    assert retry(run_file.output.url).exit_code == 0
    np.testing.assert_array_equal(stored(run_file), TRUTH)


def test_an_output_that_cannot_be_written_ends_the_run_and_sets_nothing_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_file = small_run(tmp_path)

    def refuse(sink: StoredSink, array: str, box: Box, voxels: object) -> None:
        raise InputError("the output is read-only")

    with monkeypatch.context() as patch:
        patch.setattr(StoredSink, "write", refuse)
        with pytest.raises(InputError, match="read-only"):
            run(run_file)
    assert status(run_file.output.url).failed_blocks == ()
    assert run(run_file).exit_code == 0


def test_rejected_sections_are_never_read(tmp_path: Path) -> None:
    run_file = small_run(tmp_path, source={"rejected_sections": (2, 3)})
    unreadable = Failure(Box((2, 0, 0), (4, 37, 53)), times=10**6, error=MissingDataError)
    assert run_with(run_file, [unreadable]).exit_code == 0
    kept = position_coded(SHAPE)[[0, 1, 4, 5, 6]]
    np.testing.assert_array_equal(stored(run_file)[:6], TRUTH[:6])
    np.testing.assert_array_equal(stored(run_file)[20:], TRUTH[20:])
    np.testing.assert_array_equal(stored(run_file)[5:21], interpolated(kept[1:3], 15))


# Blocks of a constant volume compress to a few bytes; noise does not. A limit on the size of files, between
# the two, is a disk that fills when the noise is reached: it needs no privileges and nothing to mount.
LIMITED_RUN = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (30000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
from vemdiffuse_pipe.cli.entry import main
main(["run", sys.argv[1]])
"""


def test_a_full_disk_ends_the_run_in_one_sentence_and_what_is_done_stays_done(tmp_path: Path) -> None:
    volume = np.full((13, 64, 64), 90, np.uint8)
    volume[11:] = np.random.default_rng(1).integers(0, 256, (2, 64, 64))
    write_source(tmp_path, volume)
    big = {"chunk_shape": (10, 64, 64), "shard_shape": (10, 64, 64)}
    run_file = small_run(tmp_path, output=big, run={"block_shape": (10, 64, 64)})
    path = tmp_path / "run.toml"
    path.write_text(dump(run_file))
    limited = subprocess.run([sys.executable, "-c", LIMITED_RUN, str(path)], capture_output=True, text=True)
    assert limited.returncode == 1
    *_, sentence = limited.stderr.splitlines()
    assert sentence.startswith("vemdiffuse: ")
    assert "no room is left there: make some, and rerun to resume" in sentence
    assert not any(word in limited.stderr for word in ("Traceback", "distributed", "Exception"))
    found = status(run_file.output.url)
    assert (found.n_blocks, found.failed_blocks) == (7, ())
    assert 3 <= found.n_blocks_done < 7
    assert run(run_file).n_rendered == 7 - found.n_blocks_done
    np.testing.assert_array_equal(stored(run_file), interpolated(volume, 5))


def test_a_disk_that_fills_under_the_receipts_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_file = small_run(tmp_path)

    def full(descriptor: int, line: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("vemdiffuse_pipe.records.segments._write", full)
        with pytest.raises(StorageFullError, match="No space left"):
            run(run_file)
    n_done = status(run_file.output.url).n_blocks_done
    assert 1 <= n_done < 24
    assert run(run_file).n_rendered == 24 - n_done
    np.testing.assert_array_equal(stored(run_file), TRUTH)


def sorted_blocks(outcome: Outcome) -> list[FailedBlock]:
    return sorted(outcome.failed_blocks, key=lambda block: block.block_index)
