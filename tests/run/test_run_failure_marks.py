"""When a block is marked failed: once two processes have failed at it, never because of a faulty host."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from small_runs import BLOCK, SHAPE, interpolated, small_run, stored

from vemdiffuse_pipe.cli.entry import run_command
from vemdiffuse_pipe.cluster.walltime import Deadline
from vemdiffuse_pipe.config import RunFile, dump
from vemdiffuse_pipe.errors import CorruptDataError, TransientError, VemdiffuseError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.monitor.status import status
from vemdiffuse_pipe.records.events import BlockDone, Event, Outcome, RunStarted
from vemdiffuse_pipe.records.folder import records_of
from vemdiffuse_pipe.records.journal import Journal
from vemdiffuse_pipe.records.parts import Part
from vemdiffuse_pipe.running.execution import run_plan
from vemdiffuse_pipe.running.progress import Progress
from vemdiffuse_pipe.running.reconstruct import prepare, retry, run
from vemdiffuse_pipe.storage import parse_address
from vemdiffuse_pipe.storage.retry import RetryPolicy
from vemdiffuse_pipe.testing import Failure, FlakySource, SlowSource, position_coded
from vemdiffuse_pipe.volume import OnHole, Source, Voxels, ignore_hole

HASTY = RetryPolicy(n_attempts=2, base_s=0.001)
WHOLE = Box.of_shape(SHAPE)
BAD = Box((6, 0, 0), (7, 1, 1))  # read by block 18 alone


def part(run_file: RunFile, number: int, *failures: Failure) -> Outcome:
    source, plan = prepare(run_file)
    return run_plan(plan, FlakySource(source, failures), part=Part(number, 2), retry_policy=HASTY)


@contextmanager
def another_lives(run_file: RunFile) -> Iterator[None]:
    """While it lasts, somebody else has a heartbeat, and is at none of these blocks."""
    run(run_file, part=Part(1, 1), max_blocks=0)
    with Journal(records_of(parse_address(run_file.output.url)), BLOCK, every_s=1000.0) as journal:
        journal.start(10**6)
        journal.beat()
        yield


@pytest.mark.parametrize("error", [CorruptDataError, VemdiffuseError, TransientError])
def test_what_fails_in_one_process_is_left_to_live_workers(
    tmp_path: Path, error: type[VemdiffuseError]
) -> None:
    run_file = small_run(tmp_path)
    with another_lives(run_file):
        outcome = part(run_file, 1, Failure(BAD, 99, error))
    assert (outcome.n_done, outcome.failed_blocks, outcome.exit_code) == (23, (), 1)
    assert outcome.stopped.startswith("1 block(s) failed here, and are left to others")
    assert status(run_file.output.url).failed_blocks == ()
    assert run(run_file, part=Part(2, 2)).exit_code == 0
    np.testing.assert_array_equal(stored(run_file), interpolated(position_coded(SHAPE), 5))


def test_what_fails_in_two_processes_is_marked_failed_and_retry_forgets_both(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    with another_lives(run_file):
        part(run_file, 1, Failure(BAD, 99, CorruptDataError))
        outcome = part(run_file, 2, Failure(BAD, 99, CorruptDataError))
    assert [(b.block_index, b.n_attempts) for b in outcome.failed_blocks] == [(18, 2)]
    assert (outcome.stopped, outcome.exit_code) == ("", 1)
    assert retry(run_file.output.url).exit_code == 0
    assert status(run_file.output.url).failed_blocks == ()


def test_retry_forgets_what_one_process_failed_at(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    with another_lives(run_file):
        part(run_file, 1, Failure(BAD, 99, CorruptDataError))
    address = records_of(parse_address(run_file.output.url))
    _, plan = prepare(run_file)
    progress = Progress(address, plan.digest, plan.blocks, plan.shards)
    assert [mark.block.block_index for mark in progress.all_marks()] == [18]
    assert retry(run_file.output.url).exit_code == 0
    progress.update()
    assert progress.all_marks() == []


def test_a_process_alone_tries_twice_before_it_marks_a_block_failed(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    assert part(run_file, 1, Failure(BAD, 1, CorruptDataError)).exit_code == 0
    other = small_run(tmp_path, output={"url": str(tmp_path / "other.zarr")})
    outcome = part(other, 1, Failure(BAD, 99, CorruptDataError))
    assert [(b.block_index, b.n_attempts) for b in outcome.failed_blocks] == [(18, 2)]


def test_a_process_without_a_network_marks_no_block_failed(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    for _ in range(2):
        outcome = part(run_file, 1, Failure(WHOLE, 999, TransientError))
        assert (outcome.n_done, outcome.failed_blocks, outcome.exit_code) == (0, (), 1)
    assert run(run_file, part=Part(2, 2)).exit_code == 0


@pytest.mark.parametrize("error", [VemdiffuseError, TransientError])
def test_a_faulty_host_ends_a_run_without_parts_and_marks_nothing_failed(
    tmp_path: Path, error: type[VemdiffuseError]
) -> None:
    run_file = small_run(tmp_path)
    source, plan = prepare(run_file)
    outcome = run_plan(plan, FlakySource(source, [Failure(WHOLE, 999, error)]), retry_policy=HASTY)
    assert (outcome.n_done, outcome.failed_blocks, outcome.exit_code) == (0, (), 1)
    assert "blocks in a row" in outcome.stopped
    assert run(run_file).exit_code == 0


@pytest.mark.parametrize("arguments", [(), ("--part", "1/1")], ids=["run", "part"])
def test_a_faulty_host_is_no_interrupt(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
) -> None:
    def fail(*_: object) -> object:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr("vemdiffuse_pipe.running.render_job.render_block", fail)
    path = tmp_path / "run.toml"
    path.write_text(dump(small_run(tmp_path)))
    assert run_command(["run", str(path), *arguments]) == 1
    out = capsys.readouterr().out
    assert "3 blocks in a row failed here: assuming a faulty host" in out
    assert "(RuntimeError: CUDA error" in out
    assert "block is marked failed:" not in out


def test_a_run_that_is_complete_is_never_out_of_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_file = small_run(tmp_path)
    run(run_file)
    path = tmp_path / "run.toml"
    path.write_text(dump(run_file))
    capsys.readouterr()
    assert run_command(["run", str(path), "--part", "1/2", "--walltime", "00:00:01"]) == 0
    out, err = capsys.readouterr()
    assert "is complete: 24 of 24 blocks are done" in out
    assert "time" not in err


def test_a_walltime_in_which_nothing_can_be_ended_is_said_to_be_too_short(tmp_path: Path) -> None:
    source, plan = prepare(small_run(tmp_path))
    outcome = run_plan(plan, source, part=Part(1, 2), deadline=Deadline(-1.0))
    assert (outcome.n_done, outcome.exit_code) == (0, 0)
    assert (
        "no block could be finished in it: give it more, or make block_shape in [run] smaller"
        in outcome.stopped
    )


def test_a_job_that_is_ended_before_its_first_block_says_what_to_change(tmp_path: Path) -> None:
    source, plan = prepare(small_run(tmp_path))

    def hear(event: Event) -> None:
        if isinstance(event, RunStarted):
            os.kill(os.getpid(), signal.SIGTERM)

    no_time_to_drain = Deadline(0.0, lambda: 0.0)
    slow = SlowSource(source, 0.3)
    outcome = run_plan(plan, slow, part=Part(1, 2), listener=hear, deadline=no_time_to_drain)
    assert (outcome.n_done, outcome.drained, outcome.exit_code) == (0, True, 0)
    assert outcome.stopped.startswith("SIGTERM was received before a block was finished; if that is its wall")


class HookedSource:
    """Calls `hook` before the read that would be the first of another part."""

    def __init__(self, source: Source, n_own: int, hook: Callable[[], None]) -> None:
        self.spec = source.spec
        self._source, self._n_left, self._hook = source, n_own, hook

    def read(self, box: Box, on_hole: OnHole = ignore_hole) -> Voxels:
        self._n_left -= 1
        if self._n_left == -1:
            self._hook()
        return self._source.read(box, on_hole)


def test_blocks_that_others_did_meanwhile_are_not_rendered_again_by_a_helper(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    source, plan = prepare(run_file)

    def let_the_other_part_finish() -> None:
        run(run_file, part=Part(2, 2))
        time.sleep(1.0)  # the thread that rereads is another one

    hooked = HookedSource(source, 12, let_the_other_part_finish)
    outcome = run_plan(plan, hooked, part=Part(1, 2), recheck_s=0.02)
    assert outcome.exit_code == 0
    assert outcome.n_rendered == 12


def test_what_a_living_process_is_at_is_left_to_it_while_there_is_something_else(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    run(run_file, part=Part(1, 1), max_blocks=0)
    at, done = (1, 9, 23), list[int]()

    def hear(event: Event) -> None:
        if isinstance(event, BlockDone):
            done.append(event.block_index)

    with Journal(records_of(parse_address(run_file.output.url)), BLOCK, every_s=1000.0) as journal:
        for block in at:
            journal.start(block)
        journal.beat()
        assert run(run_file, part=Part(1, 2), listener=hear).exit_code == 0
    assert not set(at) & set(done[:18])  # receipts are written several at once
    assert sorted(done) == list(range(24))
