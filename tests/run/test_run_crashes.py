"""Blocks that crash their process: suspected after one crash, marked failed after two more alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_runs import BLOCK, SHAPE, interpolated, small_run, stored

from vemdiffuse_pipe.config import RunFile, dump
from vemdiffuse_pipe.geometry.box import Zyx
from vemdiffuse_pipe.monitor.status import status
from vemdiffuse_pipe.records.events import BlockDone, Event
from vemdiffuse_pipe.records.folder import records_of
from vemdiffuse_pipe.records.heartbeats import FOLDER as BEATS
from vemdiffuse_pipe.records.heartbeats import Heartbeat, read_heartbeats
from vemdiffuse_pipe.records.journal import Journal
from vemdiffuse_pipe.records.parts import Part
from vemdiffuse_pipe.running.reconstruct import retry, run
from vemdiffuse_pipe.storage import parse_address
from vemdiffuse_pipe.testing import position_coded

SCRIPT = Path(__file__).with_name("deadly_process.py")
WHOLE = Part(1, 1)


def started(folder: Path, run_file: RunFile, deadly: int, *arguments: str) -> int:
    """The exit code of a process that dies when it reads the block `deadly`."""
    path = folder / "run.toml"
    path.write_text(dump(run_file))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(deadly), "run", str(path), *arguments],
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])},
        capture_output=True,
        timeout=120,
    )
    return done.returncode


def begun(folder: Path) -> RunFile:
    """A run whose output is there, with nothing in it."""
    run_file = small_run(folder)
    run(run_file, part=WHOLE, max_blocks=0)
    return run_file


def die(run_file: RunFile, *blocks: int, alone: bool = False, block_shape: Zyx = BLOCK) -> None:
    """Leave the heartbeat of a process that died with these blocks, an hour ago."""
    output = records_of(parse_address(run_file.output.url))
    journal = Journal(output, block_shape, every_s=1000.0, clock=lambda: 1000.0)
    for block in blocks:
        journal.start(block, alone=alone)
    journal.beat()  # and it is never closed


def done_by(run_file: RunFile) -> list[int]:
    heard: list[Event] = []
    run(run_file, part=WHOLE, listener=heard.append)
    return [event.block_index for event in heard if isinstance(event, BlockDone)]


def the_dead(run_file: RunFile) -> list[Heartbeat]:
    return read_heartbeats(records_of(parse_address(run_file.output.url)), 1e10).crashed


@pytest.mark.slow
def test_a_block_that_crashes_every_worker_is_marked_failed_and_the_rest_done(tmp_path: Path) -> None:
    run_file, deadly = small_run(tmp_path), 18
    codes: list[int] = []
    while not codes or codes[-1] == -signal.SIGKILL:
        codes.append(started(tmp_path, run_file, deadly, "--part", f"{len(codes) % 2 + 1}/2"))
        assert len(codes) < 7
    assert codes[-1] == 1
    assert len(codes) <= 5
    found = status(run_file.output.url)
    assert (found.n_blocks_done, [block.block_index for block in found.failed_blocks]) == (23, [deadly])
    assert found.failed_blocks[0].reason.startswith("CrashedError: a process crashed with this block")
    assert retry(run_file.output.url).exit_code == 0
    np.testing.assert_array_equal(stored(run_file), interpolated(position_coded(SHAPE), 5))


@pytest.mark.slow
def test_a_run_in_one_process_resumes_without_what_crashed_it_again_and_again(tmp_path: Path) -> None:
    run_file, codes = small_run(tmp_path), []
    while not codes or codes[-1] == -signal.SIGKILL:
        codes.append(started(tmp_path, run_file, 18))
        assert len(codes) < 7
    assert codes[-1] == 1
    found = status(run_file.output.url)
    assert (found.n_blocks_done, [block.block_index for block in found.failed_blocks]) == (23, [18])


def test_what_crashed_a_run_in_one_process_is_retried_last_and_alone(tmp_path: Path) -> None:
    run_file = begun(tmp_path)
    die(run_file, 0, 5)
    die(run_file, 7, alone=True)
    die(run_file, 7, alone=True)
    heard: list[Event] = []
    outcome = run(run_file, listener=heard.append)
    done = [event.block_index for event in heard if isinstance(event, BlockDone)]
    assert [block.block_index for block in outcome.failed_blocks] == [7]
    assert (len(done), set(done[-2:]), outcome.exit_code) == (23, {0, 5}, 1)


def test_blocks_of_a_crashed_worker_are_retried_last(tmp_path: Path) -> None:
    run_file = begun(tmp_path)
    die(run_file, 0, 5, 7)
    done = done_by(run_file)
    assert sorted(done) == list(range(24))
    assert set(done[-3:]) == {0, 5, 7}


def test_a_process_that_crashes_with_a_suspect_was_alone_with_it(tmp_path: Path) -> None:
    run_file = begun(tmp_path)
    die(run_file, 0, 5, 7)
    said: list[tuple[tuple[int, ...], bool]] = []

    def hear(event: Event) -> None:
        if isinstance(event, BlockDone):
            said.extend((beat.blocks, beat.alone) for beat in beats())

    def beats() -> list[Heartbeat]:
        living = read_heartbeats(records_of(parse_address(run_file.output.url)), 1000.0).living
        return [beat for beat in living if beat.time > 1000.0]

    assert run(run_file, part=WHOLE, listener=hear).exit_code == 0
    suspected = [blocks for blocks, alone in said if alone]
    assert sorted(set(suspected)) == [(0,), (5,), (7,)]
    assert all(not {0, 5, 7} & set(blocks) for blocks, alone in said if not alone)


def test_many_blocks_of_crashed_workers_are_not_marked_failed(tmp_path: Path) -> None:
    run_file = begun(tmp_path)
    for _ in range(3):
        die(run_file, *range(24))
    outcome = run(run_file, part=WHOLE)
    assert (outcome.exit_code, outcome.failed_blocks) == (0, ())


def test_two_crashes_alone_with_a_suspect_mark_it_failed_and_no_other(tmp_path: Path) -> None:
    run_file = begun(tmp_path)
    die(run_file, 3, 4, 5)
    die(run_file, 4, alone=True)
    die(run_file, 4, alone=True)
    outcome = run(run_file, part=WHOLE)
    assert [block.block_index for block in outcome.failed_blocks] == [4]
    assert (outcome.n_done, outcome.exit_code) == (23, 1)


def test_one_crash_alone_may_be_bad_luck(tmp_path: Path) -> None:
    run_file = begun(tmp_path)
    die(run_file, 3, 4, 5)
    die(run_file, 4, alone=True)
    die(run_file, 5, alone=True)
    assert run(run_file, part=WHOLE).exit_code == 0


def test_blocks_of_another_shape_are_other_blocks(tmp_path: Path) -> None:
    run_file = begun(tmp_path)
    for _ in range(2):
        die(run_file, 4, alone=True, block_shape=(16, 16, 32))
    assert run(run_file, part=WHOLE).exit_code == 0


def test_retry_forgets_crashes(tmp_path: Path) -> None:
    run_file = begun(tmp_path)
    die(run_file, 3, 4)
    die(run_file, 4, alone=True)
    die(run_file, 4, alone=True)
    assert run(run_file, part=WHOLE).exit_code == 1
    assert retry(run_file.output.url).exit_code == 0
    assert the_dead(run_file) == []


def test_heartbeats_of_crashed_workers_do_not_pile_up(tmp_path: Path) -> None:
    run_file = begun(tmp_path)
    for _ in range(3):
        die(run_file, 1, 2)
    run(run_file, part=WHOLE)
    run(run_file, part=WHOLE)
    assert len(the_dead(run_file)) == 1  # that somebody died is still known


def test_a_process_names_what_it_begins_with_and_takes_its_heartbeat_away(tmp_path: Path) -> None:
    run_file, named = small_run(tmp_path), []

    def hear(event: Event) -> None:
        if isinstance(event, BlockDone) and not named:
            named.extend(read_heartbeats(records_of(parse_address(run_file.output.url)), 1000.0).living)

    run(run_file, part=WHOLE, listener=hear)
    assert [beat.blocks[0] for beat in named] == [0]
    assert list((records_of(parse_address(run_file.output.url)) / BEATS).path.iterdir()) == []


def test_a_worker_killed_on_this_machine_counts_as_crashed_at_once(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    assert started(tmp_path, run_file, 0, "--part", "1/1") == -signal.SIGKILL
    url = run_file.output.url
    (beat,) = read_heartbeats(records_of(parse_address(url)), 0.0).crashed  # whose time is yet to come
    assert beat.blocks == (0,)
    assert status(url).processes == ()
