"""The workplace of a worker process: found by the run's key, so that a task carries nothing but coordinates.

A key belongs to one call of `run`. In a process of its own a workplace is opened by the plugin, when the
worker starts, and again when a lost worker is replaced; a worker that is a part of the driver's process is
given the driver's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from distributed import Worker, WorkerPlugin

from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.render.block import Hardware
from vemdiffuse_pipe.running import stages
from vemdiffuse_pipe.running.hosts import device_name
from vemdiffuse_pipe.running.opening import open_run_source
from vemdiffuse_pipe.running.retries import Patience
from vemdiffuse_pipe.running.stages import Rendered, Sections, Workplace, open_workplace

_PLACES: dict[str, Workplace] = {}


def read(key: str, block_index: int, output_box: Box) -> Sections:
    """The task that reads."""
    return stages.read(_PLACES[key], block_index, output_box)


def render(key: str, sections: Sections) -> Rendered:
    """The task that renders."""
    return stages.render(_PLACES[key], sections)


def write(key: str, rendered: Rendered) -> None:
    """The task that writes. Nothing returns: to fetch a result would cost the driver a message and a wait."""
    stages.write(_PLACES[key], rendered)


@contextmanager
def present(key: str, place: Workplace) -> Iterator[None]:
    """While it lasts, tasks in this process find `place` under `key`. Its journal is the caller's."""
    _PLACES[key] = place
    try:
        yield
    finally:
        del _PLACES[key]
        place.receipts.close()


@dataclass(frozen=True)
class OpenWorkplace(WorkerPlugin):
    """Opens source, model and sink once in each worker process."""

    key: str
    plan: Plan
    hardware: Hardware
    patience: Patience

    def setup(self, worker: Worker) -> None:
        """Open; what opening raises, the driver gets."""
        torch.set_num_threads(1)
        source = open_run_source(self.plan.run_file)
        place = open_workplace(self.plan, self.hardware, self.patience, source)
        place.journal.tell("worker started", device=device_name(self.hardware.device))
        _PLACES[self.key] = place

    def teardown(self, worker: Worker) -> None:
        """Close."""
        if self.key in _PLACES:
            place = _PLACES.pop(self.key)
            place.journal.tell("worker ended")
            place.close()
