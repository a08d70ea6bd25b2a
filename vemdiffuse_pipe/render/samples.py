"""Samples of a gap become its mean and its spread, on the device where they were drawn.

blended tiles    all tiles of sample k, each by its ramp --> sample k of the gap --> moments --> planes
cores            all samples of a tile ------------------> moments of its core ----------------> planes
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from vemdiffuse_pipe.geometry.grey import UNCERTAINTY_STEP
from vemdiffuse_pipe.models.noise import degrees_of_freedom
from vemdiffuse_pipe.render.finished import FinishedPlanes
from vemdiffuse_pipe.render.tiles import GapTiles


class Moments:
    """Mean and squared deviations of samples that are added one by one: float32. Welford 1962."""

    def __init__(self) -> None:
        self.n = 0
        self.mean, self.squares = torch.zeros(()), torch.zeros(())

    def add(self, sample: Tensor) -> None:
        """Take in one more sample. The first one is the mean."""
        self.n += 1
        if self.n == 1:
            self.mean, self.squares = sample, torch.zeros_like(sample)
            return
        difference = sample - self.mean
        self.mean = self.mean + difference / self.n
        self.squares += difference * (sample - self.mean)

    def spread(self) -> Tensor:
        """Standard deviation of the samples."""
        return (self.squares / (degrees_of_freedom(self.n) or 1)).sqrt()


def finish_gap(gap: GapTiles, samples: Iterator[Tensor], finished: FinishedPlanes) -> None:
    """Take the gap's planes from `samples`, in the order of `gap.items()`, and finish them."""
    box, planes = gap.block.output_box, gap.planes
    rows = slice(planes.start - box.start[0], planes.stop - box.start[0])
    finish = _finish_blended if gap.block.plan.lattice.is_blended else _finish_cores
    finish(gap, samples, rows, finished)


def _finish_blended(gap: GapTiles, samples: Iterator[Tensor], rows: slice, finished: FinishedPlanes) -> None:
    lattice, shape_yx = gap.block.plan.lattice, gap.block.output_box.shape[1:]
    moments = Moments()
    for _ in range(gap.block.plan.sampling.samples):
        blended: Tensor | None = None
        for tile in gap.tiles:
            planes, (in_tile, in_block) = next(samples), gap.overlap(tile)
            if blended is None:
                blended = torch.zeros((*planes.shape[:-2], *shape_yx), device=planes.device)
            weights = torch.from_numpy(lattice.weights(tile)[in_tile]).to(planes.device)
            blended[(..., *in_block)] += planes[(..., *in_tile)] * weights
        assert blended is not None, "a block touches a tile"
        moments.add(blended)
    _put(moments, (rows, slice(None), slice(None)), finished)


def _finish_cores(gap: GapTiles, samples: Iterator[Tensor], rows: slice, finished: FinishedPlanes) -> None:
    for tile in gap.tiles:
        in_tile, in_block = gap.overlap(tile)
        moments = Moments()
        for _ in range(gap.block.plan.sampling.samples):
            moments.add(next(samples)[(..., *in_tile)])
        _put(moments, (rows, *in_block), finished)


def _put(moments: Moments, where: tuple[slice, slice, slice], finished: FinishedPlanes) -> None:
    """Store the mean, and the spread where there is one: of the samples, or as the model answers it."""
    if moments.mean.dim() == 4:
        mean, spread = moments.mean
        finished.put("em", where, mean)
        finished.put("uncertainty", where, spread / UNCERTAINTY_STEP)
        return
    finished.put("em", where, moments.mean)
    if moments.n > 1:
        finished.put("uncertainty", where, moments.spread() / UNCERTAINTY_STEP)
