"""The workplace of a worker process: found by the run's key, so that a task carries nothing but coordinates.

A key belongs to one call of `run`. In a process of its own a workplace is opened by the plugin, when the
worker starts, and again when a lost worker is replaced; a worker that is a part of the driver's process is
given the driver's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

import torch
from distributed import Client, Worker, WorkerPlugin, get_worker

from vemdiffuse_pipe.cluster.binding import bind_gpu
from vemdiffuse_pipe.cluster.hosts import device_name
from vemdiffuse_pipe.cluster.shutdown import GracefulShutdown, job_deadline
from vemdiffuse_pipe.cluster.walltime import Deadline
from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.output.opening import open_run_source
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.render.block import Hardware
from vemdiffuse_pipe.running import stages
from vemdiffuse_pipe.running.stages import Rendered, Sections, WorkerContext, open_worker_context
from vemdiffuse_pipe.storage.retry import RetryPolicy, with_retries

T = TypeVar("T")
FAILED_ON = "failed_on"  # attribute of an error: the address of the worker

_PLACES: dict[str, WorkerContext] = {}
_SHUTDOWNS: dict[str, GracefulShutdown] = {}
_OPENING = Lock()


def read(key: str, block_index: int, output_box: Box) -> Sections:
    """The task that reads. A process that is about to end hands it back."""
    if key in _SHUTDOWNS:
        _SHUTDOWNS[key].begin(output_box)
    return _followed(key, output_box, False, lambda: stages.read(_place(key), block_index, output_box))


def render(key: str, sections: Sections) -> Rendered:
    """The task that renders."""
    return _followed(key, sections.output_box, False, lambda: stages.render(_place(key), sections))


def write(key: str, rendered: Rendered) -> None:
    """The task that writes. Nothing returns: to fetch a result would cost the driver a message and a wait."""
    _followed(key, rendered.output_box, True, lambda: stages.write(_place(key), rendered))


def _followed(key: str, output_box: Box, is_last: bool, stage: Callable[[], T]) -> T:
    """The result of a stage; where it fails, or is the last one, the block has ended in this process."""
    shutdown, is_done = _SHUTDOWNS.get(key), False
    try:
        result = stage()
        is_done = True
        return result
    except Exception as error:
        vars(error)[FAILED_ON] = get_worker().address  # it is pickled with the error: another may do better
        raise
    finally:
        if shutdown is not None and (is_last or not is_done):
            shutdown.end(output_box, is_done=is_done)


def _place(key: str) -> WorkerContext:
    """The workplace of a run. Where it could not be opened when this process began, it is opened now."""
    if key not in _PLACES:
        with _OPENING:
            if key not in _PLACES:
                plugins = get_worker().plugins.values()
                plugin = next(p for p in plugins if isinstance(p, WorkerContextPlugin) and p.key == key)
                _PLACES[key] = with_retries(plugin.open, plugin.retry_policy, lambda reason: None)
    return _PLACES[key]


@contextmanager
def present(key: str, place: WorkerContext) -> Iterator[None]:
    """While it lasts, tasks in this process find `place` under `key`. Its journal is the caller's."""
    _PLACES[key] = place
    try:
        yield
    finally:
        del _PLACES[key]
        place.receipts.close()


@dataclass(frozen=True)
class WorkerContextPlugin(WorkerPlugin):
    """Opens source, model and sink once in each worker process."""

    key: str
    plan: Plan
    hardware: Hardware
    retry_policy: RetryPolicy

    def setup(self, worker: Worker) -> None:
        """Open; what opening raises, the driver gets."""
        torch.set_num_threads(1)
        run_file = self.plan.run_file
        table, is_elsewhere = run_file.run, run_file.run.is_elsewhere
        bind_gpu(str(worker.name), table, run_file.cluster)
        if table.engine != "threads":
            deadline = job_deadline() if is_elsewhere else Deadline(None)
            shutdown = GracefulShutdown(worker, deadline, restart=not is_elsewhere)
            shutdown.listen()
            _SHUTDOWNS[self.key] = shutdown
        _PLACES[self.key] = self.open()

    def open(self) -> WorkerContext:
        """The workplace. Raises InputError or TransientError."""
        source = open_run_source(self.plan.run_file)
        place = open_worker_context(self.plan, self.hardware, self.retry_policy, source)
        place.journal.tell("worker started", device=device_name(self.hardware.device))
        return place

    def teardown(self, worker: Worker) -> None:
        """Close."""
        if self.key in _SHUTDOWNS:
            _SHUTDOWNS.pop(self.key).close()
        if self.key in _PLACES:
            place = _PLACES.pop(self.key)
            place.journal.tell("worker ended")
            place.close()


def register(client: Client, plugin: WorkerContextPlugin) -> None:
    """Have it in every worker, also of those that come later. Raises ConfigError where workers are too
    different to understand it, and what opening raises.
    """
    try:
        client.register_plugin(plugin, name=plugin.key)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"the workers of {plugin.plan.run_file.run.engine} cannot do this run ({error}): the same "
            "version of vemdiffuse_pipe must be installed where they are"
        ) from None
