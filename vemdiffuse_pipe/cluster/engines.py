"""Where workers that are other processes come from. A worker holds one GPU resource and three threads.

    local                     worker processes on this machine, one a GPU
    tcp://host:port           the workers of a dask cluster that somebody else started
    slurm, lsf, pbs, sge      batch jobs of one worker a GPU, as many as there is work for and are allowed

One thread reads, one computes, one writes. Dask's memory management is off: the bounded window limits memory,
and a worker that spills would only be slower, one that is killed at 95 % only lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
from distributed import Client, LocalCluster

from vemdiffuse_pipe.cluster import signals
from vemdiffuse_pipe.cluster.batch import check_jobs, job_cluster
from vemdiffuse_pipe.config import ClusterTable, RunTable
from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.plan.estimate import BLOCKS_IN_FLIGHT

GPU = "GPU"
THREADS_PER_WORKER = 3
CONNECT_TIMEOUT_S = 20.0
WORKERS_TIMEOUT_S = 60.0

_SETTINGS = {
    "distributed.scheduler.allowed-failures": 1,  # a task that crashed two workers fails: KilledWorker
    "distributed.scheduler.work-stealing": False,  # stealing would move sections between processes
    "distributed.scheduler.http.routes": [],  # dask's web servers cannot be left out: they serve nothing,
    "distributed.worker.http.routes": [],
}
_ANY_PORT = "127.0.0.1:0"  # and nobody else can reach them


_ON_CLUSTERS = {
    "distributed.scheduler.allowed-failures": 3,  # where workers also crash for reasons that no block causes
}


@contextmanager
def connect(
    table: RunTable,
    cluster: ClusterTable | None = None,
    logs: Path | None = None,
    n_left: Callable[[], int] = lambda: 0,
) -> Iterator[Client]:
    """A client of the engine that the run file asks for. Workers that it started are gone afterwards.

    `cluster`, `logs`: of batch jobs. `n_left`: blocks that are left to do, which decides how many jobs there
    are. Raises ConfigError where the engine cannot be started.
    """
    with dask.config.set(_SETTINGS):
        if table.is_remote:
            with _remote_client(table.engine) as client:
                wait_for_resources(client, table.engine)
                yield client
        elif table.scheduler is not None:
            jobs, folder = needed_cluster(table, cluster), logs or Path("vemdiffuse.logs").absolute()
            with (
                dask.config.set(_ON_CLUSTERS),
                job_cluster(table.scheduler, jobs, folder, GPU, THREADS_PER_WORKER, n_left) as workers,
                Client(workers, set_as_default=False) as client,
            ):
                yield client
        else:
            with _local_cluster(table) as local, Client(local, set_as_default=False) as client:
                check_resources(client)
                yield client


def _remote_client(address: str, timeout_s: float = CONNECT_TIMEOUT_S) -> Client:
    try:
        return Client(address, timeout=timeout_s, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no dask scheduler answers at {address} ({type(error).__name__}); start one with "
            f"`dask scheduler`, and its workers with {_worker_command(address)}"
        ) from None


def _local_cluster(table: RunTable) -> LocalCluster:
    with signals.blocked_in_children():
        return LocalCluster(
            processes=True,
            n_workers=table.workers,
            threads_per_worker=THREADS_PER_WORKER,
            resources={GPU: 1},
            memory_limit=0,
            scheduler_kwargs={"dashboard": table.dashboard, "dashboard_address": _ANY_PORT},
            worker_dashboard_address=_ANY_PORT,
            silence_logs=logging.CRITICAL + 1,
        )


def check_dashboard() -> None:
    """Raises ConfigError where what draws dask's dashboard is not installed."""
    try:
        import distributed.dashboard.scheduler  # noqa: F401
    except ImportError:
        raise ConfigError(
            "dask's dashboard is drawn by bokeh, which is not installed (or too old): install bokeh, or "
            "leave dashboard out"
        ) from None


def check_engine(table: RunTable, cluster: ClusterTable | None, logs: Path) -> None:
    """Raises ConfigError where it is known beforehand that no worker can be started."""
    if table.scheduler is not None:
        check_jobs(table.scheduler, needed_cluster(table, cluster), logs)


def needed_cluster(table: RunTable, cluster: ClusterTable | None) -> ClusterTable:
    """The [cluster] table. Raises ConfigError where the run file has none."""
    if cluster is None:
        raise ConfigError(
            f"engine {table.engine} needs a [cluster] table in the run file: memory_gb at least, and as a "
            "rule queue, walltime and max_jobs"
        )
    return cluster


def window(client: Client, table: RunTable, recheck_s: float = 2.0) -> Callable[[], int]:
    """How many blocks may be in flight now: three for each worker that is connected; they come and go.

    With more, the first worker of a cluster would read the blocks of those that are still queued.
    """
    n, checked = table.workers, float("-inf")

    def max_in_flight() -> int:
        nonlocal n, checked
        if table.is_elsewhere and time.monotonic() - checked > recheck_s:
            n, checked = max(1, n_with_resource(client)), time.monotonic()
        return BLOCKS_IN_FLIGHT * n

    return max_in_flight


def n_with_resource(client: Client) -> int:
    """Workers that can render."""
    workers = client.scheduler_info()["workers"].values()
    return sum(worker["resources"].get(GPU, 0) >= 1 for worker in workers)


def _n_workers(client: Client) -> int:
    return len(client.scheduler_info()["workers"])


def _worker_command(address: str) -> str:
    return f"`dask worker {address} --resources {GPU}=1 --nthreads {THREADS_PER_WORKER}`"


def wait_for_resources(client: Client, address: str, timeout_s: float = WORKERS_TIMEOUT_S) -> None:
    """Wait until a worker can render. Raises ConfigError where none connects in time; dask would wait on."""
    ends = time.monotonic() + timeout_s
    while not n_with_resource(client):
        if time.monotonic() > ends:
            raise ConfigError(
                f"none of the {_n_workers(client)} workers at {address} has the resource {GPU}=1 after "
                f"{timeout_s:.0f} s; start one a GPU with {_worker_command(address)}"
            )
        time.sleep(0.2)


def check_resources(client: Client) -> None:
    """Raises ConfigError unless a worker holds the resource that rendering needs; dask would wait on."""
    if not n_with_resource(client):
        raise ConfigError(
            f"none of the {_n_workers(client)} workers has the resource {GPU}=1; start them with "
            f"--resources {GPU}=1"
        )
