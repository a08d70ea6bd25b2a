"""A reconstruction of sections that are in memory, without a store: for comparisons, not for volumes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import psutil

from vemdiffuse_pipe.cluster.resources import threads_per_worker
from vemdiffuse_pipe.config import ModelTable, OutputTable, RunFile, RunTable, SourceTable
from vemdiffuse_pipe.geometry.frame import Frame, exact_nm
from vemdiffuse_pipe.models.card import find_card
from vemdiffuse_pipe.output.preparation import open_run_model
from vemdiffuse_pipe.plan.estimate import estimate
from vemdiffuse_pipe.plan.plan import Plan, make_plan
from vemdiffuse_pipe.volume import VolumeSpec, Voxels

SAMPLED_S = 0.02
THIS_MACHINE = RunTable()  # its first device, all of its cores


@dataclass(frozen=True, slots=True)
class Rendered:
    """What was made, and what it cost."""

    arrays: dict[str, Voxels]
    """By name, uint8, zyx."""
    seconds: float
    """Of rendering, without loading the model."""
    flop: float
    """Floating-point operations, by the plan's estimate."""
    peak_bytes: int
    """The most memory that the process held meanwhile, looked at 50 times a second."""


def plan_in_memory(
    sections: Voxels,
    model: ModelTable,
    run: RunTable = THIS_MACHINE,
    *,
    pixel_nm: float = 10.0,
    section_planes: int = 1,
) -> Plan:
    """The plan for sections in memory; `model.ratio` is given. Raises PlanError, ModelError.

    The contrast is that of the sections, levels 0 and 255 left out. `pixel_nm`: side of a pixel, and distance
    of planes; `section_planes`: how many planes thick a section is.
    """
    assert model.ratio is not None
    pixel = Fraction(pixel_nm).limit_denominator(10**6)
    voxel = exact_nm([model.ratio * pixel, pixel, pixel])
    spec = VolumeSpec("memory", "array", Frame(_shape(sections), voxel), "uint8", (1, 64, 64), (1, 64, 64))
    thickness = section_planes * pixel_nm
    run_file = RunFile(
        source=SourceTable(url="memory", contrast=_contrast(sections), section_thickness_nm=thickness),
        output=OutputTable(url="memory"),
        model=model,
        run=run,
    )
    return make_plan(run_file, spec, find_card(model.name, model.task))


def reconstruct_in_memory(
    sections: Voxels,
    model: ModelTable,
    run: RunTable = THIS_MACHINE,
    *,
    pixel_nm: float = 10.0,
    section_planes: int = 1,
) -> Rendered:
    """The planes of `sections` (uint8, zyx) by `model`, as one block, and what they cost.

    The same voxels as a run on a stored volume gives, with the same contrast. `pixel_nm`, `section_planes`:
    as in `plan_in_memory`. Raises PlanError, ModelError.
    """
    from vemdiffuse_pipe.render.block import Hardware, render_block  # imports torch

    plan = plan_in_memory(sections, model, run, pixel_nm=pixel_nm, section_planes=section_planes)
    filler = open_run_model(plan)
    hardware = Hardware(run.device, threads_per_worker(run), run.tile_batch)
    with _peak_bytes() as peaks:
        started = time.perf_counter()
        arrays = render_block(plan, filler, sections, plan.output.box, hardware)
        seconds = time.perf_counter() - started
    return Rendered(arrays, seconds, estimate(plan).flop, max(peaks))


def _shape(sections: Voxels) -> tuple[int, int, int]:
    z, y, x = sections.shape
    return z, y, x


def _contrast(sections: Voxels) -> tuple[float, float]:
    inside = sections[(sections > 0) & (sections < 255)]
    if not inside.size:
        return 128.0, 1.0
    return float(inside.mean()), float(inside.std()) or 1.0


@contextmanager
def _peak_bytes() -> Iterator[Sequence[int]]:
    """The memory of this process while the context lasts, growing by one figure every 20 ms."""
    process, done, peaks = psutil.Process(), threading.Event(), [0]

    def look() -> None:
        while not done.wait(SAMPLED_S):
            peaks.append(process.memory_info().rss)

    peaks.append(process.memory_info().rss)
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        peaks.append(process.memory_info().rss)
        done.set()
        thread.join()
