"""Where workers come from. Each engine is a dask client; a worker holds one GPU resource and three threads.

    threads     one worker, threads of this process: the default; nothing is pickled, nothing to start
    local       worker processes on this machine

One thread reads, one renders, one writes. Dask's own ways with memory are off: the bounded window limits it,
and a worker that spills or is killed at 95 % would only be slower or dead.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import dask
from distributed import Client, LocalCluster

from vemdiffuse_pipe.config import RunTable
from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.running import signals

GPU = "GPU"
THREADS_PER_WORKER = 3

_SETTINGS = {
    "distributed.scheduler.allowed-failures": 1,  # a task that two workers died of is blamed: KilledWorker
    "distributed.scheduler.work-stealing": False,  # stealing would move sections between processes
    "distributed.scheduler.http.routes": [],  # dask's web servers cannot be left out: they serve nothing,
    "distributed.worker.http.routes": [],
}
_ANY_PORT = "127.0.0.1:0"  # and nobody else can reach them


@contextmanager
def connect(table: RunTable) -> Iterator[Client]:
    """A client of the engine that the run file asks for; its workers are gone afterwards. Says nothing."""
    with (
        dask.config.set(_SETTINGS),
        _local_cluster(table) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        check_resources(client)
        yield client


def _local_cluster(table: RunTable) -> LocalCluster:
    with signals.kept_from_children():
        return LocalCluster(
            processes=not is_in_process(table),
            n_workers=table.workers,
            threads_per_worker=THREADS_PER_WORKER,
            resources={GPU: 1},
            memory_limit=0,
            scheduler_kwargs={"dashboard": table.dashboard, "dashboard_address": _ANY_PORT},
            worker_dashboard_address=_ANY_PORT,
            silence_logs=logging.CRITICAL + 1,
        )


def check_dashboard(table: RunTable) -> None:
    """Raises ConfigError where a dashboard is wanted and what draws it is not installed."""
    if not table.dashboard:
        return
    try:
        import distributed.dashboard.scheduler  # noqa: F401
    except ImportError:
        raise ConfigError(
            "dask's dashboard is drawn by bokeh, which is not installed (or too old): install bokeh, or "
            "leave dashboard out"
        ) from None


def is_in_process(table: RunTable) -> bool:
    """True where the worker is a part of this process."""
    return table.engine == "threads" and table.workers == 1


def check_resources(client: Client) -> None:
    """Raises ConfigError unless a worker holds the resource that rendering needs; dask would wait on."""
    workers = client.scheduler_info()["workers"].values()
    if not any(worker["resources"].get(GPU, 0) >= 1 for worker in workers):
        raise ConfigError(
            f"none of the {len(workers)} workers has the resource {GPU}=1; start them with "
            f"--resources {GPU}=1"
        )
