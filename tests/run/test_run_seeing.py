"""Seeing a run: what is at work and how fast, from the output alone; and its blocks as a picture."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_runs import receipt_files, small_run

from vemdiffuse_pipe.config import RunFile, dump
from vemdiffuse_pipe.errors import MissingDataError, OutputError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.monitor.block_map import COLOURS, MARGIN_PX, TEXT_PX, block_map, cells_of, draw
from vemdiffuse_pipe.monitor.event_log import events
from vemdiffuse_pipe.monitor.status import Status, Watched, status
from vemdiffuse_pipe.monitor.tally import N_SLOWEST, Tally
from vemdiffuse_pipe.records.folder import RECORDS, records_of
from vemdiffuse_pipe.records.heartbeats import FOLDER as BEATS
from vemdiffuse_pipe.records.receipts import Cost, read_receipts
from vemdiffuse_pipe.records.segments import encode
from vemdiffuse_pipe.records.shards import ShardSet
from vemdiffuse_pipe.running.execution import run_plan
from vemdiffuse_pipe.running.reconstruct import prepare, run
from vemdiffuse_pipe.storage import parse_address
from vemdiffuse_pipe.testing import Failure, FlakySource

SCRIPT = Path(__file__).with_name("slow_run.py")
DAY_S = 86400.0


def beat(run_file: RunFile, *blocks: int, **changes: object) -> None:
    """A heartbeat of now that names blocks, as another process would leave it."""
    record = {
        "time": time.time(),
        "host": "node9",
        "pid": 1,
        "job": "4711_3",
        "device": "cuda:0 NVIDIA H200",
        "since": time.time() - 60,
        "every_s": 5.0,
        "block_shape": [8, 16, 32],
        "blocks": list(blocks),
    }
    folder = Path(run_file.output.url) / RECORDS / BEATS
    folder.mkdir(exist_ok=True)
    (folder / f"{len(list(folder.iterdir()))}.json").write_bytes(encode({**record, **changes}))


def test_blocks_are_running_that_a_heartbeat_names_until_they_are_done(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    run(run_file, max_blocks=5)
    beat(run_file, 0, 2, 23, 24, -1, 10**9)  # 0 is done, and there are 24
    assert status(run_file.output.url).running == (2, 23)


def test_a_heartbeat_of_other_blocks_means_the_same_voxels(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    run(run_file, max_blocks=0)
    beat(run_file, 1, block_shape=[8, 16, 16])
    beat(run_file, 3, block_shape=[8, 48, 64])
    assert status(run_file.output.url).running == (0, 18)


def test_an_old_heartbeat_names_nothing(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    run(run_file, max_blocks=0)
    beat(run_file, 1)
    url = run_file.output.url
    assert status(url, now=time.time() + 16).running == ()
    assert status(url, now=time.time() + 16, oldest_s=30).running == (1,)


def test_time_is_left_only_while_somebody_works(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    run(run_file, max_blocks=5)
    url = run_file.output.url
    assert status(url).seconds_left is None
    beat(run_file, 23)
    found = status(url)
    left = found.voxels_total - found.voxels_done
    assert found.seconds_left == pytest.approx(left / found.voxels_per_s_now)
    resting = status(url, now=time.time() + DAY_S, oldest_s=2 * DAY_S)
    assert (resting.voxels_per_s_now, resting.seconds_left) == (0, pytest.approx(left / found.voxels_per_s))


def test_a_host_shows_its_devices_its_processes_and_its_speed(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    run(run_file, max_blocks=5)
    beat(run_file, 23)
    beat(run_file, 22, pid=2)
    ours, theirs = sorted(status(run_file.output.url).hosts, key=lambda host: host.host == "node9")
    assert (ours.n_blocks_done, ours.n_processes, ours.devices) == (5, 0, ("cpu",))
    assert (theirs.n_blocks_done, theirs.n_processes, theirs.voxels_per_s_now) == (0, 2, 0)
    assert ours.voxels_per_s_now == pytest.approx(ours.voxels_done / 60, rel=0.2)


def cost(host: str, time: float, seconds: float, start: int = 0, n_attempts: int = 1) -> Cost:
    return {
        "shards": [0],
        "box": [[start, 0, 0], [start + 1, 10, 10]],
        "seconds": {"read": seconds / 4, "render": 3 * seconds / 4},
        "n_attempts": n_attempts,
        "bytes_read": 1,
        "peak_bytes": 1,
        "host": host,
        "device": "cpu",
        "time": time,
    }


def test_now_is_five_minutes_or_three_blocks_but_an_hour_at_most() -> None:
    minutes = []
    for seconds in (1, 120, 86400):
        tally = Tally(0.0)
        tally.add("s", cost("a", 0.0, seconds))
        minutes.append(tally.recent_minutes())
    assert minutes == [5, 6, 60]


def test_only_what_was_done_now_counts_for_the_speed_of_now() -> None:
    tally = Tally(now=10_000.0)
    for host, ago in (("a", 1), ("a", 299), ("a", 301), ("b", 50), ("b", 9000)):
        tally.add("s", cost(host, 10_000.0 - ago, 1.0))
    assert {name: tally.recent(host) for name, host in tally.hosts.items()} == {"a": 200, "b": 100}


def test_what_is_now_moves_on_with_the_clock() -> None:
    tally = Tally(now=10_000.0)
    tally.add("s", cost("a", 9_990.0, 1.0))
    recent = []
    for tally.now in (10_000.0, 10_289.0, 10_291.0, 20_000.0):
        recent.append(tally.recent(tally.hosts["a"]))
    assert recent == [100, 100, 0, 0]


def test_watching_reads_new_receipts_only_and_says_what_a_first_look_says(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    run(run_file, max_blocks=5)
    watched = Watched(run_file.output.url)
    assert watched.status().n_blocks_done == 5
    (read,) = receipt_files(run_file)
    run(run_file)
    now = time.time()
    whole = status(run_file.output.url, now=now)
    assert whole.n_blocks_done == 24
    assert replace(watched.status(now=now), seconds=whole.seconds) == whole  # sums, in another order
    read.write_bytes(b"?" * read.stat().st_size)
    assert replace(watched.status(now=now), seconds=whole.seconds) == whole


def test_an_output_that_became_another_runs_is_not_watched_on(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    run(run_file, max_blocks=1)
    watched = Watched(run_file.output.url)
    shutil.rmtree(run_file.output.url)
    run(small_run(tmp_path, model={"name": "cubic"}), max_blocks=1)
    with pytest.raises(OutputError, match="no longer of"):
        watched.status()


def test_the_slowest_blocks_are_kept_and_no_more() -> None:
    tally = Tally(0.0)
    for i in range(50):
        tally.add("s", cost("a", 0.0, float(i * 7 % 50), start=i))
    assert sorted(seconds for seconds, *_ in tally.slowest) == [45, 46, 47, 48, 49]
    assert len(tally.slowest) == N_SLOWEST


def test_failures_are_grouped_by_their_kind_with_one_example(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    source, plan = prepare(run_file)
    last_rows = Box((6, 36, 0), (7, 37, 53))  # of two blocks
    run_plan(plan, FlakySource(source, [Failure(last_rows, times=10**6, error=MissingDataError)]))
    (reason,) = status(run_file.output.url).reasons
    assert (reason.kind, reason.n_blocks, reason.example.block_index) == ("MissingDataError", 2, 22)
    told = [(event.what, event.block) for event in events(run_file.output.url)]
    expected = [(what, block) for what in ("block failed", "marked failed") for block in (22, 23)]
    assert sorted(told[1:-1]) == expected


def test_each_receipt_says_where_it_was_made_and_what_it_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    run_file = small_run(tmp_path)
    run(run_file, max_blocks=1)
    digest = status(run_file.output.url).digest
    ((_, receipt),) = read_receipts(records_of(parse_address(run_file.output.url)), digest)
    assert set(receipt.seconds) == {"read", "render", "write"}
    assert (receipt.job, receipt.device, receipt.peak_gpu_bytes) == ("4711", "cpu", 0)
    assert receipt.host
    assert receipt.peak_bytes > 1e6


def test_a_receipt_of_before_jobs_and_gpus_were_kept_still_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    run_file = small_run(tmp_path)
    run(run_file, max_blocks=1)
    (segment,) = receipt_files(run_file)
    record = json.loads(segment.read_bytes())
    for name in ("check", "job", "bytes_fetched", "n_requests_failed"):
        del record[name]
    segment.write_bytes(encode(record))
    found = status(run_file.output.url)
    assert (found.n_blocks_done, found.bytes_fetched) == (1, 0)
    ((_, receipt),) = read_receipts(records_of(parse_address(run_file.output.url)), found.digest)
    assert receipt.job == ""


@pytest.mark.slow
def test_worker_processes_tell_when_they_come_and_go(tmp_path: Path) -> None:
    run_file = small_run(tmp_path, run={"workers": 2, "engine": "local", "block_shape": (31, 37, 53)})
    assert run(run_file).exit_code == 0
    told = events(run_file.output.url)
    whats = sorted(event.what for event in told)
    assert whats == sorted(["run started", "run ended", *["worker started", "worker stopped"] * 2])
    assert len({event.pid for event in told}) == 3


@pytest.mark.slow
def test_three_processes_are_seen_at_work_and_killed_ones_are_not_seen_for_long(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    path = tmp_path / "run.toml"
    path.write_text(dump(run_file))
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])}
    command = [sys.executable, str(SCRIPT), str(path)]
    working = [subprocess.Popen(command, env=environment) for _ in range(3)]
    try:
        found = seen(run_file, n_processes=3)
    finally:
        for process in working:
            process.kill()
            process.wait()
    assert {beat.pid for beat in found.processes} == {process.pid for process in working}
    assert found.running
    assert [host.n_processes for host in found.hosts] == [3]
    assert len(status(run_file.output.url, oldest_s=3600).processes) == 3
    later = status(run_file.output.url, now=time.time() + 16)
    assert (later.processes, later.running) == ((), ())
    assert run(run_file).exit_code == 0


def seen(run_file: RunFile, n_processes: int) -> Status:
    """The status when so many processes name blocks at once. The output may not be there yet."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (Path(run_file.output.url) / "zarr.json").exists():
            found = status(run_file.output.url, oldest_s=3600)
            if sum(bool(beat.blocks) for beat in found.processes) == n_processes:
                return found
        time.sleep(0.1)
    raise AssertionError("they were never seen together")


def colour_of(state: str, *, share: float = 1.0) -> list[int]:
    here, there = np.array(COLOURS[state]), np.array(COLOURS["missing"])
    return (share * here + (1 - share) * there).round().astype(int).tolist()


def test_the_map_shows_each_block_in_the_colour_of_its_state(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    source, plan = prepare(run_file)
    last_rows = Box((6, 36, 0), (7, 37, 53))
    run_plan(plan, FlakySource(source, [Failure(last_rows, times=10**6, error=MissingDataError)]))
    for segment in receipt_files(run_file):  # leave two blocks
        segment.write_bytes(b"".join(segment.read_bytes().splitlines(keepends=True)[:2]))
    beat(run_file, 20)
    done = {index for index in range(24) if index in done_blocks(run_file)}
    assert len(done) == 2
    wanted = {**dict.fromkeys(done, "done"), 22: "failed", 23: "failed", 20: "running"}
    pixels = np.asarray(block_map(run_file.output.url))
    top, step = 2 * MARGIN_PX + TEXT_PX, 16  # 4 panels of 3 x 2 cells, two beside each other
    for index in range(24):
        z, y, x = index // 6, index // 2 % 3, index % 2
        row = top + (z // 2) * (3 * step + 4) + y * step + step // 2
        column = MARGIN_PX + (z % 2) * (2 * step + 4) + x * step + step // 2
        assert pixels[row, column].tolist() == colour_of(wanted.get(index, "missing")), index


def done_blocks(run_file: RunFile) -> set[int]:
    _, plan = prepare(run_file)
    digest = status(run_file.output.url).digest
    receipts = read_receipts(records_of(parse_address(run_file.output.url)), digest)
    return {plan.blocks.index_of(receipt.output_box.start) for _, receipt in receipts}


def grid(counts: Zyx) -> tuple[BlockGrid, ShardSet]:
    """As many blocks of one shard each, none done."""
    blocks = BlockGrid(counts, (1, 1, 1))
    return blocks, ShardSet(blocks)


def test_a_cell_of_many_blocks_is_as_green_as_its_share_that_is_done() -> None:
    blocks, done = grid((128, 3, 1))
    skipped = ShardSet(blocks)
    for index in range(3 * 3):  # layers 0 to 2
        done.add(index)
    for index in range(4 * 3, 5 * 3):
        skipped.add(index)
    cells = cells_of(blocks, done, [7 * 3], [9 * 3, 10 * 3], skipped)
    assert (cells.blocks_per_cell, cells.colours.shape) == ((2, 1, 1), (64, 3, 1, 3))
    first, second, third, fourth, fifth, sixth = (cells.colours[i, 0, 0].tolist() for i in range(6))
    assert (first, second) == (colour_of("done"), colour_of("done", share=0.5))
    assert (third, fourth) == (colour_of("skipped", share=0.5), colour_of("running"))
    assert (fifth, sixth) == (colour_of("failed"), colour_of("failed"))
    assert cells.counts == {"done": 9, "running": 1, "failed": 2, "missing": 384 - 15, "skipped": 3}


@pytest.mark.parametrize("counts", [(1, 1, 1), (1, 4000, 3), (20, 700, 700), (5000, 7, 11), (3, 5, 9001)])
def test_the_map_of_any_number_of_blocks_is_of_bounded_size(counts: Zyx) -> None:
    blocks, done = grid(counts)
    done.add(0)
    cells = cells_of(blocks, done, [], [])
    page = draw(cells)
    assert max(page.size) <= 2048
    assert sum(cells.counts.values()) == blocks.n_blocks


def test_the_colours_of_states_are_apart() -> None:
    colours = np.array(list(COLOURS.values()), float)
    apart = np.abs(colours[:, None] - colours[None]).sum(axis=2)
    assert apart[~np.eye(len(colours), dtype=bool)].min() > 100
