"""How long rendering takes here: one tile, timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.models.checkpoint import load_model
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.render.block import Hardware, render_block

GREY = (128.0, 40.0)  # a contrast to time with, where none was measured yet


def seconds_per_tile(plan: Plan, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds to render the planes of one gap in one tile, one sample: the shorter of two trials.

    The first trial pays for what is done once: memory, threads, compiled kernels.
    """
    device, sampling = plan.run_file.run.device, plan.sampling
    model = load_model(
        plan.run_file.model.name,
        steps=sampling.steps,
        contrast=plan.contrast or GREY,
        precision=sampling.precision,
        device=device,
        task=plan.card.task,
    )
    one_sample = replace(plan, sampling=replace(sampling, samples=1))
    one_tile = (plan.gaps.r, *plan.lattice.stride_px)
    output_box = Box.of_shape(one_tile).intersect(plan.output.box)
    sections = np.full(plan.source_box(output_box).shape, 128, np.uint8)
    seconds = []
    for _ in range(2):
        started = clock()
        render_block(one_sample, model, sections, output_box, Hardware(device))
        seconds.append(clock() - started)
    return min(seconds)
