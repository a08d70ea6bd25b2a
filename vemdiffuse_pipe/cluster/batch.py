"""Workers as batch jobs, through dask-jobqueue: it submits, counts and replaces them. The directives are ours
(`schedulers`), so that a worker's job and a job of an array ask for the same things.

Only public API of dask is used, with one exception: `ProcessInterface`, the class that dask documents as what
a worker process of a cluster looks like, but exports from a module of its own. Its `start` is what marks a
job as started whose submission is being retried.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed import Adaptive
from distributed.deploy.spec import ProcessInterface

from vemdiffuse_pipe.cluster.schedulers import SUBMIT, Job, directives
from vemdiffuse_pipe.cluster.shutdown import JOB_ENDS
from vemdiffuse_pipe.config import ClusterTable, Scheduler
from vemdiffuse_pipe.errors import ConfigError

ANY_PORT = "127.0.0.1:0"
MAX_WAIT_S = 60.0

_NAMES = {"slurm": "SLURM", "lsf": "LSF", "pbs": "PBS", "sge": "SGE"}


@contextmanager
def job_cluster(
    scheduler: Scheduler,
    table: ClusterTable,
    logs: Path,
    resource: str,
    n_threads: int,
    n_left: Callable[[], int],
) -> Iterator[Any]:
    """A dask cluster whose workers are jobs, `min_jobs` to `max_jobs` of them; lost ones are replaced.

    Each worker process holds one `resource` and `n_threads`. `n_left`: blocks that are left to do. The first
    job is submitted before this returns: raises ConfigError where it is refused.
    """
    check_jobs(scheduler, table, logs)
    logs.mkdir(parents=True, exist_ok=True)
    cluster_class, job_class = _classes(scheduler)
    resubmitting = _resubmitting(job_class)
    with cluster_class(
        job_cls=resubmitting,
        scheduler_options={"dashboard": False, "dashboard_address": ANY_PORT},
        silence_logs=logging.CRITICAL + 1,
        **job_options(scheduler, table, logs, resource, n_threads),
    ) as cluster:
        cluster.scale(jobs=1)
        while not resubmitting.is_accepted:
            if resubmitting.refusal:
                raise ConfigError(f"{SUBMIT[scheduler]} refused the first job: {resubmitting.refusal}")
            time.sleep(0.05)
        cluster.adapt(minimum_jobs=table.min_jobs, maximum_jobs=table.max_jobs, Adaptive=_scaling(n_left))
        yield cluster


def check_jobs(scheduler: Scheduler, table: ClusterTable, logs: Path) -> None:
    """Raises ConfigError where no job can be described or submitted here."""
    Job(table, logs)
    _classes(scheduler)
    if shutil.which(SUBMIT[scheduler]) is None:
        raise ConfigError(
            f"engine {scheduler}: {SUBMIT[scheduler]} is not on the PATH; run this where jobs are submitted"
        )


def job_options(
    scheduler: Scheduler, table: ClusterTable, logs: Path, resource: str, n_threads: int
) -> dict[str, Any]:
    """Options of dask-jobqueue for each job. Its own directives are left out: ours replace them."""
    return {
        "cores": n_threads * table.workers_a_job,  # as dask counts: threads of its workers
        "processes": table.workers_a_job,
        "memory": f"{table.memory_gb}GB",
        "interface": table.interface,
        "job_name": "vemdiffuse",
        "job_directives_skip": [""],
        "job_extra_directives": directives(scheduler, Job(table, logs)),
        "job_script_prologue": [
            f"export {JOB_ENDS}=$(( $(date +%s) + {table.walltime_s} ))",
            *table.prologue,
        ],
        "worker_extra_args": [
            *("--resources", f"{resource}=1"),
            *("--memory-limit", "0"),  # the bounded window limits it
            *("--dashboard-address", ANY_PORT),
        ],
        "local_directory": '"${TMPDIR:-/tmp}"',
        "python": None,
    }


def _classes(scheduler: Scheduler) -> tuple[Any, Any]:
    """dask-jobqueue's classes of a cluster and of a job. Raises ConfigError where it is not installed."""
    try:
        import dask_jobqueue
    except ImportError:
        raise ConfigError(
            f"engine {scheduler} needs dask-jobqueue, which is not installed: "
            "pip install 'vemdiffuse_pipe[cluster]'"
        ) from None
    cluster_class = getattr(dask_jobqueue, f"{_NAMES[scheduler]}Cluster")
    return cluster_class, cluster_class.job_cls


def job_script(scheduler: Scheduler, table: ClusterTable, logs: Path, resource: str, n_threads: int) -> str:
    """The script of a worker's job, with a scheduler's address that stands for any."""
    options = job_options(scheduler, table, logs, resource, n_threads)
    job = _classes(scheduler)[1]("tcp://192.0.2.1:8786", name="vemdiffuse-0", **options)
    script: str = job.job_script()
    return script


def _scaling(n_left: Callable[[], int]) -> type[Adaptive]:
    """Dask's adaptive scaling, but with all allowed workers until there is less work than they have in
    flight.

    Dask's own rule counts the tasks that it has: no more than the window lets through, which is made for the
    workers that are connected. `target` is the method that dask documents for this.
    """

    class Scaling(Adaptive):
        async def target(self) -> int:
            """How many workers there should be now."""
            n_workers = len(self.cluster.scheduler_info["workers"])
            wanted: int = await super().target()  # type: ignore[no-untyped-call]
            return int(self.maximum) if n_left() >= 2 * max(1, n_workers) else wanted

    return Scaling


class _ResubmittedJob:
    """A job whose submission is retried: a scheduler that is busy for a minute must not stop a run.

    The first job of a run is not: if it is refused, the settings are wrong.
    """

    is_accepted = False
    refusal = ""

    async def start(self) -> None:
        try:
            await super().start()  # type: ignore[misc]
            type(self).is_accepted = True
        except (RuntimeError, ValueError, OSError) as error:
            await ProcessInterface.start(self)  # type: ignore[arg-type]  # without a job: see above
            if self.is_accepted:
                self._resubmission = asyncio.create_task(self._resubmit())
            else:
                type(self).refusal = _last_line(error)

    async def _resubmit(self) -> None:
        wait_s = 2.0
        while True:
            await asyncio.sleep(wait_s)
            wait_s = min(MAX_WAIT_S, 2 * wait_s)
            try:
                await super().start()  # type: ignore[misc]
            except (RuntimeError, ValueError, OSError):
                continue
            return

    async def close(self) -> None:
        if resubmission := getattr(self, "_resubmission", None):
            resubmission.cancel()
        await super().close()  # type: ignore[misc]


def _resubmitting(job_class: type) -> type[_ResubmittedJob]:
    """The class of the jobs of one run; they share whether the first was accepted."""
    return type(job_class.__name__, (_ResubmittedJob, job_class), {})


def _last_line(error: Exception) -> str:
    """The last line of the message that is not empty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
