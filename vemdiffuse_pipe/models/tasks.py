"""What a task asks of a model: whether it fills gaps, and what it is given of the source."""

from __future__ import annotations

from dataclasses import dataclass

from vemdiffuse_pipe.config import Task


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What holds for every model of a task."""

    fills_gaps: bool
    """True where planes between sections are made; False where each section is restored by itself."""
    scale: int
    """Pixels of the output for one of the source, along y and along x."""
    halo_px: int
    """Pixels of the source around a tile that a network is given: what doubling them linearly needs."""


TASKS: dict[Task, TaskFacts] = {
    "isotropic": TaskFacts(fills_gaps=True, scale=1, halo_px=0),
    "denoise": TaskFacts(fills_gaps=False, scale=1, halo_px=0),
    "superres": TaskFacts(fills_gaps=False, scale=2, halo_px=1),
}
