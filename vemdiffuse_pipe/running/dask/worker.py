"""The job in a worker process: found by the run's key, so that a task carries nothing but coordinates.

A key belongs to one run. The plugin opens the job when the worker starts, and again when a lost worker is
replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

import torch
from distributed import Client, Worker, WorkerPlugin, get_worker

from vemdiffuse_pipe.cluster.binding import bind_gpu
from vemdiffuse_pipe.cluster.hosts import device_name
from vemdiffuse_pipe.cluster.shutdown import GracefulShutdown, job_deadline
from vemdiffuse_pipe.cluster.walltime import Deadline
from vemdiffuse_pipe.config import ClusterTable, RunTable
from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.records.events import WorkerStarted, WorkerStopped
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.running import stages
from vemdiffuse_pipe.running.job import BlockJob
from vemdiffuse_pipe.running.stages import ComputedBlock, LoadedBlock, WorkerContext, open_worker_context
from vemdiffuse_pipe.storage.retry import RetryPolicy, with_retries

T = TypeVar("T")
FAILED_ON = "failed_on"  # attribute of an error: the address of the worker

_CONTEXTS: dict[str, WorkerContext] = {}
_SHUTDOWNS: dict[str, GracefulShutdown] = {}
_OPENING = Lock()


def read(key: str, work: Work) -> LoadedBlock:
    """The task that reads. A process that drains hands it back."""
    if key in _SHUTDOWNS:
        _SHUTDOWNS[key].start(work)
    return _tracked(key, work, False, lambda: stages.read(context_of(key), work))


def compute(key: str, block: LoadedBlock) -> ComputedBlock:
    """The task that computes."""
    return _tracked(key, block.work, False, lambda: stages.compute(context_of(key), block))


def write(key: str, block: ComputedBlock) -> None:
    """The task that writes. It returns nothing: to fetch a result would cost the driver a message and a
    wait.
    """
    _tracked(key, block.work, True, lambda: stages.write(context_of(key), block))


def _tracked(key: str, work: Work, is_last: bool, stage: Callable[[], T]) -> T:
    """The result of a stage; where it fails, or is the last one, the block is over in this process."""
    shutdown, is_done = _SHUTDOWNS.get(key), False
    try:
        result = stage()
        is_done = True
        return result
    except Exception as error:
        vars(error)[FAILED_ON] = get_worker().address  # pickled with the error: another worker may succeed
        raise
    finally:
        if shutdown is not None and (is_last or not is_done):
            shutdown.stop(work, is_done=is_done)


def context_of(key: str) -> WorkerContext:
    """The job of a run in this process. Where it could not be opened when the process started, it is now."""
    if key not in _CONTEXTS:
        with _OPENING:
            if key not in _CONTEXTS:
                plugins = get_worker().plugins.values()
                plugin = next(p for p in plugins if isinstance(p, JobPlugin) and p.key == key)
                _CONTEXTS[key] = with_retries(plugin.open, plugin.retry_policy, lambda reason: None)
    return _CONTEXTS[key]


@dataclass(frozen=True)
class JobPlugin(WorkerPlugin):
    """Opens a job once in each worker process."""

    key: str
    """Of the run."""
    job: BlockJob
    """What is done."""
    table: RunTable
    """Which engine started the worker."""
    cluster: ClusterTable | None = None
    """Of batch jobs."""
    retry_policy: RetryPolicy = RetryPolicy()  # noqa: RUF009 (frozen)
    """How often a stage is repeated."""

    def setup(self, worker: Worker) -> None:
        """Open the job. The driver receives what this raises."""
        torch.set_num_threads(1)
        bind_gpu(str(worker.name), self.table, self.cluster)
        is_elsewhere = self.table.is_elsewhere
        deadline = job_deadline() if is_elsewhere else Deadline(None)
        shutdown = GracefulShutdown(worker, deadline, restart=not is_elsewhere)
        shutdown.listen()
        _SHUTDOWNS[self.key] = shutdown
        _CONTEXTS[self.key] = self.open()

    def open(self) -> WorkerContext:
        """The job in this process. Raises InputError or TransientError."""
        context = open_worker_context(self.job, self.retry_policy)
        context.emit(WorkerStarted(device_name(self.job.device)))
        return context

    def teardown(self, worker: Worker) -> None:
        """Close it."""
        if self.key in _SHUTDOWNS:
            _SHUTDOWNS.pop(self.key).close()
        if self.key in _CONTEXTS:
            context = _CONTEXTS.pop(self.key)
            context.emit(WorkerStopped())
            context.close()


def register(client: Client, plugin: JobPlugin) -> None:
    """Open the job in every worker, also in those that come later. Raises ConfigError where workers have
    another version of the package, and what opening raises.
    """
    try:
        client.register_plugin(plugin, name=plugin.key)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"the workers of {plugin.table.engine} cannot do this run ({error}): the same version of "
            "vemdiffuse_pipe must be installed there"
        ) from None
