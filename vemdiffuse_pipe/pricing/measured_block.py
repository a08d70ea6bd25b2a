"""How fast a run is here: one of its blocks, read and rendered as it will be, and written nowhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial

import numpy as np

from vemdiffuse_pipe.cluster.resources import threads_per_worker
from vemdiffuse_pipe.errors import CorruptDataError, MissingDataError, PlanError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.models.device import device_here
from vemdiffuse_pipe.output.measurements import with_contrast
from vemdiffuse_pipe.output.preparation import open_run_model
from vemdiffuse_pipe.plan.estimate import gap_flops
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.pricing.plan_price import Speed
from vemdiffuse_pipe.records.shards import ShardSet
from vemdiffuse_pipe.render.block import Hardware, render_block
from vemdiffuse_pipe.storage import stores
from vemdiffuse_pipe.storage.retry import RetryPolicy, with_retries
from vemdiffuse_pipe.survey.kept_sections import read_kept
from vemdiffuse_pipe.volume import Source, Voxels

BUDGET_S = 20.0  # after which no further gap of the block is rendered
BLOCKS_TRIED = 8


class _EnoughError(Exception):
    """What was rendered says enough."""


def measure_speed(
    plan: Plan,
    source: Source,
    outside: ShardSet,
    *,
    n_threads: int | None = None,
    budget_s: float = BUDGET_S,
    clock: Callable[[], float] = time.perf_counter,
) -> Speed:
    """What a worker does with a block from the middle of what is wanted, on the device of the run file.

    Of its gaps as many are rendered as `budget_s` allows, and at least one; where there are more the first
    does not count, for it pays for what is done once. `n_threads`: of the worker, else as many as the run's
    would have here. Raises PlanError where no block can be read.
    """
    plan = with_contrast(plan, source)
    model, table = open_run_model(plan), plan.run_file.run
    box, sections, speed = _read_one(plan, source, ~outside, clock)
    n_threads = n_threads or threads_per_worker(table, plan.run_file.cluster)
    hardware = Hardware(table.device, n_threads, table.tile_batch)
    flops, ends = gap_flops(plan, box), [clock()]

    def on_planes(n_planes: int) -> None:
        ends.append(clock())
        if ends[-1] - ends[0] >= budget_s:
            raise _EnoughError

    with suppress(_EnoughError):
        render_block(plan, model, sections, box, hardware, on_planes)
    first = 1 if len(ends) > 2 else 0
    origin = (
        f"from {len(ends) - 1} of {len(flops)} gaps of block {box}, rendered on {device_here(table.device)}"
    )
    return replace(
        speed, origin=origin, flop=sum(flops[first : len(ends) - 1]), render_s=ends[-1] - ends[first]
    )


def _read_one(
    plan: Plan, source: Source, wanted: ShardSet, clock: Callable[[], float]
) -> tuple[Box, Voxels, Speed]:
    """A block that can be read and has gaps, its sections, and how long they took."""
    itemsize = np.dtype(plan.source.dtype).itemsize
    for box in _candidates(plan, wanted):
        needed = plan.source_box(box)
        before, began, busy = stores.traffic().bytes_fetched, clock(), time.process_time()
        with suppress(MissingDataError, CorruptDataError):
            sections = with_retries(
                partial(read_kept, source, needed, plan.gaps.rejected), RetryPolicy(), lambda reason: None
            )
            speed = Speed(
                flop=0.0,
                render_s=0.0,
                is_gpu=device_here(plan.run_file.run.device) != "cpu",
                origin="",
                read_bytes=needed.n_voxels * itemsize,
                read_s=clock() - began,
                read_cpu_s=time.process_time() - busy,
                encoded_share=_encoded_share(plan, needed, stores.traffic().bytes_fetched - before),
            )
            return box, sections, speed
    raise PlanError(f"no block of {plan.source.url} that was tried can be read, so that none can be measured")


def _candidates(plan: Plan, wanted: ShardSet) -> Iterator[Box]:
    """Blocks with something to generate, evenly from all that is wanted, those from the middle first."""
    parts = sorted(range(1, 2 * BLOCKS_TRIED, 2), key=lambda part: abs(part - BLOCKS_TRIED))
    for part in parts if len(wanted) else ():
        shard = wanted.grid.box(wanted.member(len(wanted) * part // (2 * BLOCKS_TRIED)))
        box = plan.blocks.box(plan.blocks.index_of(shard.start))
        if gap_flops(plan, box):
            yield box


def _encoded_share(plan: Plan, needed: Box, n_fetched: int) -> float:
    """Bytes fetched over what the touched chunks decode to; 1 where the store does not count them."""
    touched = needed.whole(plan.source.chunk_shape).intersect(plan.source.frame.box)
    n_bytes = touched.n_voxels * np.dtype(plan.source.dtype).itemsize
    return min(1.0, n_fetched / n_bytes) if n_fetched else 1.0
