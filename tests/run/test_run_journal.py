"""Journals: heartbeats that name what is at work, and a log that survives torn lines and full disks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from small_runs import BLOCK, small_run

from vemdiffuse_pipe.cluster.hosts import device_name, job_id
from vemdiffuse_pipe.errors import OutputError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.monitor.event_log import EventLog, LoggedEvent, events, follow
from vemdiffuse_pipe.records.events import AttemptFailed, BlockMarkedFailed, FailedBlock, WorkerStarted
from vemdiffuse_pipe.records.heartbeats import FOLDER as BEATS
from vemdiffuse_pipe.records.heartbeats import Heartbeat, read_heartbeats
from vemdiffuse_pipe.records.journal import EVENTS, Journal
from vemdiffuse_pipe.records.segments import SegmentWriter, encode
from vemdiffuse_pipe.running.reconstruct import run
from vemdiffuse_pipe.storage import parse_address
from vemdiffuse_pipe.storage.address import Address

PATIENCE_S = 30.0


@pytest.fixture
def output(tmp_path: Path) -> Address:
    return parse_address(tmp_path / "out.zarr")


def quick(output: Address) -> Journal:
    return Journal(output, BLOCK, "cpu", every_s=0.01)


def until(holds: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def at_work(output: Address) -> list[tuple[int, ...]]:
    return [beat.blocks for beat in read_heartbeats(output, time.time(), oldest_s=3600).living]


def test_a_heartbeat_names_the_blocks_at_work_and_only_those(output: Address) -> None:
    with quick(output) as journal:
        with journal.working_on(7), journal.working_on(3):
            until(lambda: at_work(output) == [(3, 7)])
        with journal.working_on(7), journal.working_on(7):
            journal.stop(7)
            until(lambda: at_work(output) == [(7,)])
            journal.start(7)
        until(lambda: at_work(output) == [()])


def test_a_journal_that_was_closed_leaves_its_log_and_no_heartbeat(output: Address) -> None:
    journal = quick(output)
    journal.start(1)
    until(lambda: at_work(output) == [(1,)])
    journal.on_event(WorkerStarted("cpu"))
    journal.close()
    assert list((output / BEATS).path.iterdir()) == []
    assert len(list((output / EVENTS).path.iterdir())) == 1


def test_what_is_over_within_a_second_leaves_no_heartbeat(output: Address) -> None:
    journal = Journal(output, BLOCK)
    journal.start(1)
    journal.close()
    assert not output.path.exists()


def test_a_heartbeat_counts_until_three_are_overdue_or_for_as_long_as_is_asked(output: Address) -> None:
    put(output, every_s=5.0)
    assert [len(read_heartbeats(output, now).living) for now in (100.0, 115.0, 115.1)] == [1, 1, 0]
    assert [len(read_heartbeats(output, 107.0, oldest).living) for oldest in (6.0, 7.0)] == [0, 1]


def test_no_heartbeat_stays_young_because_it_says_so(output: Address) -> None:
    put(output, every_s=1e9)
    assert len(read_heartbeats(output, 100.0 + 3 * 120).living) == 1
    assert read_heartbeats(output, 101.0 + 3 * 120).living == []


def test_a_heartbeat_says_who_it_is_of(output: Address) -> None:
    put(output)
    assert read_heartbeats(output, 101.0).living == [
        Heartbeat("node1", 42, "", "cpu", 100.0, 50.0, (8, 16, 32), (1, 2))
    ]


BEAT: dict[str, object] = {
    "time": 100.0,
    "host": "node1",
    "pid": 42,
    "job": "",
    "device": "cpu",
    "since": 50.0,
    "every_s": 5.0,
    "block_shape": [8, 16, 32],
    "blocks": [1, 2],
}


def put(output: Address, name: str = "beat", **changes: object) -> None:
    (output / BEATS).path.mkdir(parents=True, exist_ok=True)
    (output / BEATS / f"{name}.json").path.write_bytes(encode({**BEAT, **changes}))  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "changes",
    [
        {"time": "now"},
        {"time": None},
        {"blocks": 3},
        {"blocks": ["x"]},
        {"block_shape": [1, 2]},
        {"block_shape": "abc"},
        {"pid": []},
    ],
    ids=str,
)
def test_what_is_no_heartbeat_is_passed_over(output: Address, changes: dict[str, object]) -> None:
    put(output, "good")
    put(output, "bad", **changes)
    assert len(read_heartbeats(output, 101.0).living) == 1


def test_a_torn_heartbeat_is_passed_over(output: Address) -> None:
    put(output)
    (torn,) = (output / BEATS).path.iterdir()
    torn.write_bytes(torn.read_bytes()[:-5])
    assert read_heartbeats(output, 101.0).living == []


def test_what_cannot_be_written_stops_nobody_and_is_written_later(output: Address) -> None:
    output.path.mkdir()
    obstacle = output.path / ".vemdiffuse"
    obstacle.touch()
    with quick(output) as journal:
        journal.on_event(AttemptFailed(5, "TransientError: later", 1, "read"))
        with journal.working_on(5):
            time.sleep(0.1)
        obstacle.unlink()
    assert [told.block for told in EventLog(output).new()] == [5]


def append(output: Address, *records: dict[str, object]) -> Path:
    """A segment of these events; where it is."""
    before = set(segments(output))
    writer = SegmentWriter(output / EVENTS)
    for record in records:
        writer.append({"host": "n", "pid": 1, "what": "set aside", **record})  # type: ignore[dict-item]
    writer.close()
    (segment,) = set(segments(output)) - before
    return segment


def segments(output: Address) -> list[Path]:
    folder = (output / EVENTS).path
    return list(folder.iterdir()) if folder.exists() else []


def times(told: list[LoggedEvent]) -> list[float]:
    return [event.time for event in told]


def test_events_of_several_processes_come_in_order_of_time(output: Address) -> None:
    append(output, {"time": 1.0}, {"time": 5.0})
    append(output, {"time": 2.0}, {"time": 3.0})
    append(output, {"time": 4.0})
    assert times(EventLog(output).new()) == [1, 2, 3, 4, 5]


def test_torn_lines_and_lines_that_are_no_events_do_not_count(output: Address) -> None:
    append(output, {"time": 1.0}, {"time": "x"}, {"pid": None}, {"time": 2.0, "block": "y"})
    torn = append(output, {"time": 3.0}, {"time": 4.0})
    torn.write_bytes(torn.read_bytes()[:-9])
    assert times(EventLog(output).new()) == [1, 3]


def test_each_look_at_a_log_shows_what_is_new_even_a_line_that_was_half_written(output: Address) -> None:
    segment, log = append(output, {"time": 1.0}, {"time": 2.0}), EventLog(output)
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-9])
    assert times(log.new()) == [1]
    segment.write_bytes(whole)
    append(output, {"time": 1.5})
    assert times(log.new()) == [1.5, 2]
    assert log.new() == []


def test_to_follow_a_log_is_to_read_what_is_new_and_nothing_again(output: Address) -> None:
    segment, log = append(output, {"time": 1.0}, {"time": 2.0}), EventLog(output)
    assert times(log.new()) == [1, 2]
    whole = segment.read_bytes()
    segment.write_bytes(b"?" * len(whole) + whole.replace(b"2.0", b"3.0").splitlines(keepends=True)[0])
    assert times(log.new()) == [1]  # the line after what was there


def test_a_run_tells_its_start_its_end_and_what_follows(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    run(run_file, max_blocks=2)
    url = run_file.output.url
    first = events(url)
    assert [told.what for told in first] == ["run started", "run ended"]
    assert first[0].facts.items() >= {"engine": "threads", "workers": 1, "n_missing": 24}.items()
    following = follow(url, sleep=lambda seconds: run(run_file) and None)
    assert [told.what for told in islice(following, 4)] == ["run started", "run ended"] * 2


def test_what_is_no_output_has_no_events(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        events(str(tmp_path))


def test_a_line_says_when_who_what_block_and_reason(output: Address) -> None:
    with quick(output) as journal:
        journal.on_event(BlockMarkedFailed(FailedBlock(7, Box.of_shape(BLOCK), "MissingDataError: gone", 4)))
    (line,) = segments(output)[0].read_bytes().splitlines()
    record = json.loads(line)
    assert set(record) == {"check", "time", "host", "pid", "job", "what", "block", "reason", "attempts"}
    (told,) = EventLog(output).new()
    assert (told.what, told.block, told.reason, told.facts) == (
        "marked failed",
        7,
        "MissingDataError: gone",
        {"attempts": 4},
    )


def test_lines_of_older_versions_are_read_by_their_present_names(output: Address) -> None:
    append(output, {"time": 1.0}, {"time": 2.0, "what": "given to a second worker"})
    append(output, {"time": 3.0, "what": "?"})
    whats = [event.what for event in EventLog(output).new()]
    assert whats == ["marked failed", "backup task started", "?"]


JOBS = {
    "": {},
    "4711": {"SLURM_JOB_ID": "4711"},
    "4711_3": {"SLURM_JOB_ID": "4714", "SLURM_ARRAY_JOB_ID": "4711", "SLURM_ARRAY_TASK_ID": "3"},
    "88": {"LSB_JOBID": "88", "LSB_JOBINDEX": "0"},
    "88[2]": {"LSB_JOBID": "88", "LSB_JOBINDEX": "2"},
    "12[3].server": {"PBS_JOBID": "12[3].server"},
    "9": {"JOB_ID": "9", "SGE_TASK_ID": "undefined"},
    "9.4": {"JOB_ID": "9", "SGE_TASK_ID": "4"},
}


@pytest.mark.parametrize("name", JOBS)
def test_a_job_is_named_as_its_batch_system_names_it(name: str) -> None:
    assert job_id(JOBS[name]) == name


def test_a_cpu_needs_no_other_name() -> None:
    assert device_name("cpu") == "cpu"
