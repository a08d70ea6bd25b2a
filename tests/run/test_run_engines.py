"""Engines: clusters that run already, GPUs that are bound, and workers that leave without losing anything."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace

import numpy as np
import pytest
from distributed import Client, LocalCluster, Reschedule, Worker
from killed_workers import SlowJob
from small_runs import SHAPE, interpolated, receipt_files, small_run, stored

from vemdiffuse_pipe.cluster.binding import VISIBLE, bind_gpu
from vemdiffuse_pipe.cluster.engines import GPU, connect, remote_client, wait_for_resources, window
from vemdiffuse_pipe.cluster.resources import threads_per_worker
from vemdiffuse_pipe.cluster.shutdown import JOB_ENDS, RETIRING_S, GracefulShutdown, job_deadline
from vemdiffuse_pipe.cluster.walltime import Deadline
from vemdiffuse_pipe.config import ClusterTable, RunFile, RunTable, dump
from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.monitor.status import status
from vemdiffuse_pipe.output.run_output import create_run_output
from vemdiffuse_pipe.records.shards import ShardSet, Work, missing_work
from vemdiffuse_pipe.running.dask import worker as workers
from vemdiffuse_pipe.running.dask.driver import Target, drive
from vemdiffuse_pipe.running.dask.worker import JobPlugin
from vemdiffuse_pipe.running.reconstruct import prepare, run
from vemdiffuse_pipe.running.render_job import RenderJob
from vemdiffuse_pipe.storage.retry import RetryPolicy
from vemdiffuse_pipe.testing import position_coded

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def running() -> Iterator[LocalCluster]:
    """A dask cluster that somebody else started: a worker process, with a GPU."""
    with LocalCluster(
        n_workers=1,
        threads_per_worker=3,
        resources={GPU: 1},
        memory_limit=0,
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
    ) as cluster:
        yield cluster


def n_receipts(run_file: RunFile) -> int:
    return sum(file.read_bytes().count(b"\n") for file in receipt_files(run_file))


def places(dask_worker: Worker) -> list[str]:
    """The workplaces that a worker holds."""
    return list(workers._CONTEXTS)


@pytest.mark.slow
def test_a_running_cluster_does_a_run_and_keeps_nothing_of_it(tmp_path: Path, running: LocalCluster) -> None:
    run_file = small_run(tmp_path, run={"engine": running.scheduler_address})
    assert run(run_file).exit_code == 0
    np.testing.assert_array_equal(stored(run_file), interpolated(position_coded(SHAPE), 5))
    with Client(running, set_as_default=False) as client:
        assert list(client.run(places).values()) == [[]]


@pytest.mark.slow
def test_a_run_whose_driver_was_killed_is_gone_on_with_from_elsewhere(
    tmp_path: Path, running: LocalCluster
) -> None:
    run_file = small_run(tmp_path, run={"engine": running.scheduler_address, "block_shape": (8, 16, 16)})
    (tmp_path / "run.toml").write_text(dump(run_file))
    driver = subprocess.Popen(
        [sys.executable, "-m", "vemdiffuse_pipe", "run", str(tmp_path / "run.toml")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    while n_receipts(run_file) < 3 and driver.poll() is None:
        time.sleep(0.01)
    driver.kill()
    driver.wait()
    outcome = run(run_file)
    assert (outcome.exit_code, outcome.failed_blocks) == (0, ())
    np.testing.assert_array_equal(stored(run_file), interpolated(position_coded(SHAPE), 5))


def test_a_cluster_whose_workers_lack_the_resource_is_told_how_to_start_them(running: LocalCluster) -> None:
    bare = SimpleNamespace(scheduler_info=lambda: {"workers": {"a": {"resources": {}}}})
    with pytest.raises(ConfigError, match=r"none of the 1 workers at tcp://h:1 .* --resources GPU=1"):
        wait_for_resources(bare, "tcp://h:1", timeout_s=0.0)  # type: ignore[arg-type]


def test_an_address_where_nobody_answers_is_one_sentence() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
        with (
            pytest.raises(ConfigError, match="no dask scheduler answers at"),
            remote_client(address, timeout_s=0.5),
        ):
            pass


@pytest.mark.parametrize(
    ("name", "engine", "gpus", "assigned", "bound"),
    [
        ("1", "local", 1, "4,7", "7"),
        ("1", "local", 1, None, "1"),
        ("SLURMCluster-3", "slurm", 1, "GPU-5f", "GPU-5f"),
        ("SLURMCluster-3-2", "slurm", 4, "0,1,2,3", "2"),
        ("anything", "tcp://host:1", 1, "2,3", "2,3"),
    ],
)
def test_a_worker_sees_one_gpu_of_those_that_it_was_assigned(
    name: str, engine: str, gpus: int, assigned: str | None, bound: str
) -> None:
    environ = {} if assigned is None else {VISIBLE: assigned}
    bind_gpu(name, RunTable(engine=engine, device="cuda"), ClusterTable(memory_gb=1, gpus=gpus), environ)
    assert environ == {VISIBLE: bound}


def test_a_worker_without_a_gpu_of_its_own_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"worker 2 is number 3 .* 2 GPU\(s\)"):
        bind_gpu("2", RunTable(engine="local", device="cuda"), None, {VISIBLE: "0,1"})


def test_nothing_is_bound_where_the_device_is_named() -> None:
    environ: dict[str, str] = {}
    bind_gpu("1", RunTable(engine="local", device="cuda:1"), None, environ)
    assert environ == {}


def test_blocks_are_in_flight_for_the_workers_that_are_there() -> None:
    there: dict[str, dict[str, dict[str, int]]] = {}
    client = SimpleNamespace(scheduler_info=lambda: {"workers": there})
    most = window(client, RunTable(engine="pbs"), recheck_s=0.0)  # type: ignore[arg-type]
    found = [most()]
    for name in "abc":
        there[name] = {"resources": {GPU: 1}}
        found.append(most())
    there["without"] = {"resources": {}}
    assert [*found, most()] == [3, 3, 6, 9, 9]
    assert window(client, RunTable(workers=5))() == 15  # type: ignore[arg-type]


def test_the_workers_of_a_job_share_its_cores() -> None:
    cluster = ClusterTable(memory_gb=1, gpus=4, cores=32)
    assert threads_per_worker(RunTable(engine="pbs"), cluster) == 8


class Loop:
    """Remembers what it is asked to call."""

    def __init__(self) -> None:
        self.called: list[object] = []

    def add_callback(self, *call: object) -> None:
        self.called.append(call)


def shutdown(left_s: float | None) -> tuple[GracefulShutdown, Loop]:
    loop = Loop()
    worker = SimpleNamespace(loop=loop)
    return GracefulShutdown(worker, Deadline(left_s), restart=False, hand_back_wait_s=0.0), loop  # type: ignore[arg-type]


def test_a_block_that_would_not_end_in_time_is_handed_back() -> None:
    leaver, loop = shutdown(0.05)
    leaver.start("a")
    time.sleep(0.06)
    leaver.stop("a", is_done=True)  # it took longer than is left now
    for block in "bc":
        with pytest.raises(Reschedule):
            leaver.start(block)
    assert len(loop.called) == 1, "it leaves once"


def test_a_worker_whose_job_nobody_ends_goes_on() -> None:
    leaver, loop = shutdown(None)
    for block in range(99):
        leaver.start(block)
        leaver.stop(block, is_done=True)
    assert loop.called == []


def test_blocks_end_before_the_job_does() -> None:
    ends = int(time.time()) + 1000
    left_s = job_deadline({JOB_ENDS: str(ends)}).left_s()
    assert 990 - RETIRING_S <= left_s <= 1000 - RETIRING_S
    for nonsense in ("", "soon", "-5", "٣"):
        assert job_deadline({JOB_ENDS: nonsense}).left_s() == float("inf")


class Heard:
    """A reporter that ends a worker when it has heard of a few blocks."""

    def __init__(self, pids: list[int], number: signal.Signals) -> None:
        self.n_done, self._pids, self._number = 0, pids, number

    def done(self, work: Work) -> None:
        self.n_done += 1
        if self.n_done == 5:
            os.kill(self._pids[0], self._number)

    def mark_failed(self, work: Work, reason: str, n_attempts: int) -> None:
        raise AssertionError(reason)


@pytest.mark.slow
def test_a_worker_of_a_cluster_that_is_asked_to_end_leaves_its_blocks_to_others(tmp_path: Path) -> None:
    with LocalCluster(
        n_workers=2,
        threads_per_worker=3,
        resources={GPU: 1},
        memory_limit=0,
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
    ) as cluster:
        run_file = small_run(tmp_path, run={"engine": cluster.scheduler_address})
        _, plan = prepare(run_file)
        create_run_output(plan)
        work = missing_work(plan.blocks, ShardSet(plan.shards))
        with connect(run_file.run) as client:
            workers.register(client, JobPlugin("k", SlowJob(plan), run_file.run, None, RetryPolicy()))
            before = list(client.run(os.getpid).values())
            heard = Heard(before, signal.SIGUSR1)
            assert drive(Target(client, "k"), work, 6, heard, SimpleQueue()) == ""
            ends = time.monotonic() + 60
            while before[0] in client.run(os.getpid, on_error="ignore").values():
                assert time.monotonic() < ends, "it did not leave"
                time.sleep(0.1)
            client.unregister_worker_plugin("k")
    assert heard.n_done == n_receipts(run_file) == 24


@pytest.mark.slow
def test_a_worker_that_is_asked_to_end_loses_no_block(tmp_path: Path) -> None:
    run_file = small_run(tmp_path, run={"engine": "local", "workers": 1})
    _, plan = prepare(run_file)
    create_run_output(plan)
    work = missing_work(plan.blocks, ShardSet(plan.shards))
    with connect(run_file.run) as client:
        workers.register(client, JobPlugin("k", SlowJob(plan), run_file.run, None, RetryPolicy()))
        before = list(client.run(os.getpid).values())
        heard = Heard(before, signal.SIGTERM)
        assert drive(Target(client, "k"), work, 6, heard, SimpleQueue()) == ""
        assert list(client.run(os.getpid).values()) != before, "it was not asked to end"
    assert heard.n_done == n_receipts(run_file) == status(run_file.output.url).n_blocks == 24


@dataclass(frozen=True)
class LatePlugin(JobPlugin):
    """The job cannot be opened when the worker starts."""

    def open(self) -> workers.WorkerContext:
        marker = self.job.records.path.parent / "tried"
        if not marker.exists():
            marker.touch()
            raise OSError("the file system is not mounted yet")
        return super().open()

    def setup(self, worker: Worker) -> None:
        with suppress(OSError):  # as dask does in a worker that comes later: it says so in a log
            super().setup(worker)


@pytest.mark.slow
def test_a_worker_that_could_not_open_its_workplace_opens_it_with_the_first_block(tmp_path: Path) -> None:
    run_file = small_run(tmp_path, run={"engine": "local", "workers": 1})
    _, plan = prepare(run_file)
    create_run_output(plan)
    heard, work = Heard([], signal.SIGTERM), missing_work(plan.blocks, ShardSet(plan.shards))
    heard.n_done = 100
    with connect(run_file.run) as client:
        workers.register(client, LatePlugin("k", RenderJob(plan), run_file.run, None, RetryPolicy()))
        assert drive(Target(client, "k"), work, 6, heard, SimpleQueue()) == ""
    assert heard.n_done == 124
