"""One block, a pure function: sections in, planes and their uncertainty out.

    sections (uint8) -> for each gap, or each section:
        for each sample and each tile: noise of its voxels -> model                   tiles.py
        tiles blended, or cores cut; mean and spread of the samples                   samples.py
        -> planes and their uncertainty (uint8)                                       finished.py

It streams along z, a few tiles ahead: floats exist for one gap at a time, however deep the block is.
On a CPU arithmetic runs one thread a tile, tiles in parallel, so the number of threads changes no voxel.
On a GPU this thread queues work and never waits but for finished planes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, tee
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.models.protocol import Model
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.render.finished import DevicePlanes, FinishedPlanes, HostPlanes
from vemdiffuse_pipe.render.hardware import Hardware as Hardware
from vemdiffuse_pipe.render.hardware import RenderCounts as RenderCounts
from vemdiffuse_pipe.render.samples import finish_gap
from vemdiffuse_pipe.render.tiles import BlockInputs, GapTiles, Item
from vemdiffuse_pipe.volume import Voxels

Batch: TypeAlias = tuple[GapTiles, list[Item]]
Generated: TypeAlias = list[Tensor]


def render_block(
    plan: Plan,
    model: Model,
    sections: Voxels,
    output_box: Box,
    hardware: Hardware | None = None,
    on_planes: Callable[[int], None] = lambda n_planes: None,
    counts: RenderCounts | None = None,
) -> dict[str, Voxels]:
    """The arrays of one block, by name: uint8, each of the shape of `output_box`.

    `sections`: uint8, the voxels of `plan.source_box(output_box)`. `on_planes` hears of each gap's planes as
    they are done; `counts` is added to. Measured sections pass through bit for bit, with uncertainty 0; where
    sections are restored none does, and planes of rejected ones stay 0. Raises DataError for planes that are
    not finite, PlanError where the device's memory has no room for one tile.
    """
    hardware = hardware or Hardware()
    out = {name: np.zeros(output_box.shape, np.uint8) for name in plan.arrays}
    source_box = plan.source_box(output_box)
    output_box = output_box.shift(plan.origin)  # from here on voxels are numbered as in the whole volume
    first, stop = output_box.start[0], output_box.stop[0]
    inside = output_box.relative_to(source_box.start).slices[1:]
    for section, plane in plan.gaps.measured(first, stop):
        for name in (name for name in ("em", "sample") if name in out):
            out[name][plane - first] = sections[section - source_box.start[0]][inside]
    block = BlockInputs(plan, model, sections, source_box, output_box, hardware, counts or RenderCounts())
    gaps = (GapTiles(block, gap) for gap in plan.gaps.touching(first, stop))
    _render_gaps(gaps, _finished_planes(out, hardware), hardware, on_planes)
    return out


def _render_gaps(
    gaps: Iterable[GapTiles],
    finished: FinishedPlanes,
    hardware: Hardware,
    on_planes: Callable[[int], None],
) -> None:
    """Generate and finish the gaps one after the other; the next one's tiles begin before one is finished."""
    begun, ended = tee(gaps)  # which keeps those between the two, and no others
    batches = ((gap, items) for gap in begun for items in gap.batches())
    with _in_order(hardware) as generate:
        samples = chain.from_iterable(generate(batches))
        for gap in ended:
            finish_gap(gap, samples, finished)
            on_planes(len(gap.planes))
    finished.close()


def _finished_planes(out: dict[str, Voxels], hardware: Hardware) -> FinishedPlanes:
    return DevicePlanes(out, hardware.torch_device) if hardware.is_gpu else HostPlanes(out)


def _generate(batch: Batch) -> Generated:
    gap, items = batch
    return gap.generate(items)


@contextmanager
def _in_order(hardware: Hardware) -> Iterator[Callable[[Iterable[Batch]], Iterator[Generated]]]:
    """A way to generate batches in their order: on a GPU, which queues them itself, one by one; on a CPU by
    `n_threads` threads, never more than twice as many results waiting.
    """
    if hardware.is_gpu:
        yield lambda batches: map(_generate, batches)
        return
    n = hardware.n_threads
    with ThreadPoolExecutor(n, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield lambda batches: _ahead(pool, batches, 2 * n)


def _ahead(pool: ThreadPoolExecutor, batches: Iterable[Batch], max_waiting: int) -> Iterator[Generated]:
    waiting: deque[Future[Generated]] = deque()
    for batch in batches:
        waiting.append(pool.submit(_generate, batch))
        if len(waiting) > max_waiting:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
