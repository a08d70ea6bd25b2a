"""Kills, signals and lost workers: whatever ends a run, running again completes it, and no voxel differs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import psutil
import pytest
from killed_workers import CrashingJob
from small_runs import (
    SHAPE,
    interpolated,
    receipt_files,
    shard_file,
    small_run,
    stored,
    stored_sha256,
)

from vemdiffuse_pipe.cluster.engines import connect
from vemdiffuse_pipe.config import RunFile, dump
from vemdiffuse_pipe.monitor.status import status
from vemdiffuse_pipe.output.run_output import create_run_output
from vemdiffuse_pipe.records.folder import records_of
from vemdiffuse_pipe.records.receipts import read_done
from vemdiffuse_pipe.records.shards import ShardSet, Work, missing_work
from vemdiffuse_pipe.running.dask.driver import Target, drive
from vemdiffuse_pipe.running.dask.worker import JobPlugin
from vemdiffuse_pipe.running.reconstruct import prepare, run
from vemdiffuse_pipe.running.render_job import RenderJob
from vemdiffuse_pipe.running.stages import compute, open_worker_context, read, store
from vemdiffuse_pipe.running.verify import verify
from vemdiffuse_pipe.storage import parse_address
from vemdiffuse_pipe.storage.retry import RetryPolicy
from vemdiffuse_pipe.testing import position_coded

SCRIPT = Path(__file__).with_name("killed_run.py")
DIFFUSION = {"name": "default", "ratio": 5, "samples": 2, "steps": 2, "tile_px": 32, "overlap_px": 8}


def start(run_file: RunFile, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Begin a run in another process, and wait until it works."""
    path = folder / "run.toml"
    path.write_text(dump(run_file))
    command = [sys.executable, str(SCRIPT), str(path), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])}
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def unbroken_sha256(folder: Path, **tables: dict[str, object]) -> str:
    """What a run that nothing disturbs makes of the same source."""
    run_file = small_run(folder, output={"url": str(folder / "unbroken.zarr")}, **tables)
    assert run(run_file).exit_code == 0
    return stored_sha256(run_file)


def kill_and_go_on(folder: Path, n_kills: int, seed: int, **tables: dict[str, object]) -> RunFile:
    """Kill a run again and again, each time a moment after it has done something more; then let it end."""
    run_file, chance = small_run(folder, **tables), random.Random(seed)
    killed_at = []
    for _ in range(n_kills):
        n_before = n_receipts(run_file)
        process = start(run_file, folder)
        while n_receipts(run_file) == n_before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.communicate()
        killed_at.append(status(run_file.output.url).n_blocks_done)
    n_blocks = status(run_file.output.url).n_blocks
    assert sum(0 < n < n_blocks for n in killed_at) > n_kills // 2, killed_at
    assert run(run_file).exit_code == 0
    return run_file


def n_receipts(run_file: RunFile) -> int:
    """Lines in all segments."""
    return sum(file.read_bytes().count(b"\n") for file in receipt_files(run_file))


def test_a_run_killed_at_random_moments_ends_with_the_same_voxels(tmp_path: Path) -> None:
    run_file = kill_and_go_on(tmp_path, n_kills=2, seed=1)
    assert stored_sha256(run_file) == unbroken_sha256(tmp_path)
    assert verify(run_file.output.url).is_good


@pytest.mark.slow
def test_a_diffusion_run_killed_twenty_times_ends_with_the_same_voxels(tmp_path: Path) -> None:
    blocks: dict[str, object] = {"block_shape": (8, 16, 16)}
    run_file = kill_and_go_on(tmp_path, n_kills=20, seed=2, model=DIFFUSION, run=blocks)
    assert stored_sha256(run_file) == unbroken_sha256(tmp_path, model=DIFFUSION)
    assert verify(run_file.output.url).is_good


@pytest.mark.parametrize("model", [{"name": "linear"}, DIFFUSION], ids=["linear", "diffusion"])
def test_a_kill_between_data_and_receipt_renders_that_block_again(
    tmp_path: Path, model: dict[str, object]
) -> None:
    run_file = small_run(tmp_path, model=model)
    process = start(run_file, tmp_path, "5")
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    n_done = status(run_file.output.url).n_blocks_done
    assert n_done <= 5  # two threads may have been writing
    assert run(run_file).n_rendered == 24 - n_done
    assert stored_sha256(run_file) == unbroken_sha256(tmp_path, model=model)


def test_shards_without_a_receipt_do_not_count(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    _, plan = prepare(run_file)
    create_run_output(plan)
    context, work = open_worker_context(RenderJob(plan)), Work(0, plan.blocks.box(0))
    store(context, compute(context, read(context, work)))
    assert shard_file(run_file, 0, 0, 0).exists()
    assert len(read_done(records_of(parse_address(run_file.output.url)), plan.digest, plan.shards)) == 0
    before = shard_file(run_file, 0, 0, 0).read_bytes()
    assert run(run_file).n_rendered == 24
    assert shard_file(run_file, 0, 0, 0).read_bytes() == before


def test_a_torn_last_receipt_is_ignored_and_its_block_rendered_again(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    run(run_file, max_blocks=6)
    (segment,) = receipt_files(run_file)
    segment.write_bytes(segment.read_bytes()[:-40])
    assert run(run_file).n_rendered == 19
    np.testing.assert_array_equal(stored(run_file), interpolated(position_coded(SHAPE), 5))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 0), (signal.SIGUSR1, 0)])
def test_a_signal_ends_the_run_cleanly_and_says_how_to_go_on(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    run_file = small_run(tmp_path)
    process = start(run_file, tmp_path)
    time.sleep(0.2)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, "")
    assert out == f"{number.name} was received; rerun to resume\n"
    n_done = status(run_file.output.url).n_blocks_done
    assert 0 < n_done < 24
    assert run(run_file).n_rendered == 24 - n_done


@pytest.mark.slow
def test_an_interrupt_from_the_terminal_ends_all_processes_quietly(tmp_path: Path) -> None:
    run_file = small_run(tmp_path, run={"workers": 2, "engine": "local"})
    for pause_s in (1.0, 6.0):  # workers being imported; workers at work, or the run at its end
        process = start(run_file, tmp_path)
        time.sleep(pause_s)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=120)
        leaving = -signal.SIGINT  # the run had ended, and Python, on its way out, no longer listens
        assert err == ""
        assert process.returncode in (0, 1, leaving)
    assert run(small_run(tmp_path)).exit_code == 0


class Heard:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.n_done = 0
        self.failed_blocks: list[tuple[int, str, int]] = []

    def done(self, work: Work) -> None:
        self.n_done += 1

    def mark_failed(self, work: Work, reason: str, n_attempts: int) -> None:
        self.failed_blocks.append((work.block_index, reason.split(":")[0], n_attempts))


@pytest.mark.slow
def test_only_the_block_that_crashes_its_workers_is_marked_failed(tmp_path: Path) -> None:
    run_file = small_run(
        tmp_path, run={"workers": 2, "engine": "local", "block_shape": (8, 48, 64)}
    )  # whole planes: no two read the same
    _, plan = prepare(run_file)
    create_run_output(plan)
    heard, work, inbox = Heard(), missing_work(plan.blocks, ShardSet(plan.shards)), SimpleQueue()
    (tmp_path / "crashes").mkdir()
    with connect(run_file.run) as client:
        job = CrashingJob(plan, crashes=tmp_path / "crashes", deadly_block=2)
        client.register_plugin(JobPlugin("k", job, run_file.run, None, RetryPolicy()))
        assert drive(Target(client, "k"), work, 6, heard, inbox) == ""
    assert len(list((tmp_path / "crashes").iterdir())) == 4  # two together with others, two alone with it
    assert heard.failed_blocks == [(2, "KilledWorker", 2)]
    assert heard.n_done == 3
    assert run(small_run(tmp_path, run={"block_shape": (8, 48, 64)})).n_rendered == 1
    np.testing.assert_array_equal(stored(run_file), interpolated(position_coded(SHAPE), 5))


def test_no_process_is_left_behind_when_the_driver_is_killed(tmp_path: Path) -> None:
    run_file = small_run(tmp_path, run={"workers": 2, "engine": "local"})
    process = start(run_file, tmp_path)
    deadline = time.monotonic() + 60
    while len(children(process.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = children(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.communicate()
    while any(is_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(is_alive(pid) for pid in workers)


def children(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
