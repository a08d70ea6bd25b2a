"""What passes give of a gap becomes the planes of the arrays, on the device where it was made.

blended tiles    all tiles of sample k, each by its ramp --> sample k of the gap --> moments --> planes
cores            all samples of a tile ------------------> moments of its core ----------------> planes
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from vemdiffuse_pipe.geometry.grey import UNCERTAINTY_STEP
from vemdiffuse_pipe.models.noise import degrees_of_freedom
from vemdiffuse_pipe.render.finished import FinishedPlanes, Where
from vemdiffuse_pipe.render.tiles import ESTIMATE, GapTiles, YxSlices

SPREADS = ("uncertainty", "sample_spread")  # arrays of deviations, in steps of UNCERTAINTY_STEP


class Moments:
    """Mean and squared deviations of samples that are added one by one: float32. Welford 1962."""

    def __init__(self) -> None:
        self.n = 0
        self.first, self.mean, self.squares = torch.zeros(()), torch.zeros(()), torch.zeros(())

    def add(self, sample: Tensor) -> None:
        """Take in one more sample. The first one is the mean."""
        self.n += 1
        if self.n == 1:
            self.first, self.mean, self.squares = sample, sample, torch.zeros_like(sample)
            return
        difference = sample - self.mean
        self.mean = self.mean + difference / self.n
        self.squares += difference * (sample - self.mean)

    def spread(self) -> Tensor:
        """Standard deviation of the samples."""
        return (self.squares / (degrees_of_freedom(self.n) or 1)).sqrt()


def finish_gap(gap: GapTiles, samples: Iterator[Tensor], finished: FinishedPlanes) -> None:
    """Take what the passes give of the gap, in the order of `gap.items()`, and finish its planes."""
    box, planes = gap.block.output_box, gap.planes
    rows = slice(planes.start - box.start[0], planes.stop - box.start[0])
    finish = _finish_blended if gap.block.plan.lattice.is_blended else _finish_cores
    for together in gap.passes:
        for where, moments in finish(gap, together, samples):
            _put(gap, together, moments, (rows, *where), finished)


def _finish_blended(
    gap: GapTiles, together: range, samples: Iterator[Tensor]
) -> Iterator[tuple[YxSlices, Moments]]:
    lattice, shape_yx = gap.block.plan.lattice, gap.block.output_box.shape[1:]
    moments = Moments()
    for _ in together:
        blended: Tensor | None = None
        for tile in gap.tiles:
            planes, (in_tile, in_block) = next(samples), gap.overlap(tile)
            if blended is None:
                blended = torch.zeros((*planes.shape[:-2], *shape_yx), device=planes.device)
            weights = torch.from_numpy(lattice.weights(tile)[in_tile]).to(planes.device)
            blended[(..., *in_block)] += planes[(..., *in_tile)] * weights
        assert blended is not None, "a block touches a tile"
        moments.add(blended)
    yield (slice(None), slice(None)), moments


def _finish_cores(
    gap: GapTiles, together: range, samples: Iterator[Tensor]
) -> Iterator[tuple[YxSlices, Moments]]:
    for tile in gap.tiles:
        in_tile, in_block = gap.overlap(tile)
        moments = Moments()
        for _ in together:
            moments.add(next(samples)[(..., *in_tile)])
        yield in_block, moments


def _put(gap: GapTiles, together: range, moments: Moments, where: Where, finished: FinishedPlanes) -> None:
    """Store what the passes gave, in the arrays that are written."""
    plan = gap.block.plan
    for name, planes in _answers(together, moments, plan.card.has_estimate).items():
        if name in plan.arrays:
            finished.put(name, where, planes / UNCERTAINTY_STEP if name in SPREADS else planes)


def _answers(together: range, moments: Moments, has_estimate: bool) -> dict[str, Tensor]:
    """Planes by the name of their array; samples are the best estimate of models that make no other."""
    if together.start == ESTIMATE:
        mean, spread = moments.mean
        return {"em": mean, "uncertainty": spread}
    answers = {} if has_estimate else {"em": moments.mean}
    spread = {"sample_spread" if has_estimate else "uncertainty": moments.spread()} if moments.n > 1 else {}
    return answers | spread | {"sample": moments.first}
