"""Batches of gaps: sections and the true planes between them, cut out of slabs and augmented.

        section       targets        section
           |   |   |   |   |   |   |   |           along the axis of the gap; r is drawn anew for every batch

A network that looks at `reach` sections beyond its gap's own two is given as many gaps more on either side,
and all planes from the first section to the last to learn from.

A batch is a function of (seed, step), whatever was read before and how long that took, so training resumes
where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemdiffuse_pipe.training.crops import Crop, SlabCrops
from vemdiffuse_pipe.training.pool import HeldSlab, SlabPool
from vemdiffuse_pipe.training.slabs import RATIOS, CropSpec, evenly, generator
from vemdiffuse_pipe.volume import Voxels

# Microscopes scan along x: texture there differs from that along y (in FIB-25 the upper half of the spectrum
# holds 1.6 times more along y). A network trained on half quarter turns gave both axes the same texture.
QUARTER_TURNS = 0.1
BLUR_SIGMA_PX, BLUR_RADIUS_PX = 1.5, 3

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class GapBatch:
    """`sections` (b, s, y, x) and `targets` (b, (s - 1) r - 1, y, x), standardised grey, float32.

    s is 2, and more for networks that look at more. Targets are all planes between the first section and the
    last, other sections among them.
    """

    sections: Tensor
    targets: Tensor
    ratio: int

    @property
    def middle(self) -> tuple[Tensor, Tensor]:
        """The two sections of the gap in the middle, and its planes: (b, 2, y, x), (b, r - 1, y, x)."""
        r, reach = self.ratio, self.sections.shape[1] // 2 - 1
        return self.sections[:, reach : reach + 2], self.targets[:, reach * r : (reach + 1) * r - 1]


@dataclass(frozen=True, slots=True)
class Variation:
    """What is done to crops at random. Flips along each axis, with the gap turned round, are always.

    `quarter_turns`: share of crops that get one. `blur`: share of sections that are blurred, each by itself;
    targets never are. `gain`: the contrast of a new volume is only estimated, so it is changed by up to this.
    `least_contrast`: a crop whose sections vary less, in deviations of the volume, is replaced by another.
    `noise`: deviation of what is added to sections, in deviations of the volume; never to targets.
    """

    quarter_turns: float = QUARTER_TURNS
    blur: float = 0.0
    gain: float = 0.1
    least_contrast: float = 0.1
    noise: float = 0.0


class Batches(Protocol):
    """Batches of gaps by step, and what they cost. Not to be used by two threads at once."""

    @property
    def n_bytes(self) -> tuple[int, int]:
        """(decoded, used) so far."""
        ...

    @property
    def n_rejected(self) -> int:
        """Crops that were black or flat, so far."""
        ...

    def batch(self, step: int, share: slice = slice(None)) -> GapBatch:
        """The batch of `step`, or a share of it: what one of several processes takes."""
        ...

    def close(self) -> None:
        """End the readers."""
        ...


@dataclass(frozen=True, slots=True)
class RoundRobin:
    """Batches of one kind after the other: step by step, in turn."""

    kinds: Sequence[Batches]

    @property
    def n_bytes(self) -> tuple[int, int]:
        """(decoded, used) so far, of all kinds."""
        decoded, used = zip(*(kind.n_bytes for kind in self.kinds), strict=True)
        return sum(decoded), sum(used)

    @property
    def n_rejected(self) -> int:
        """Of all kinds."""
        return sum(kind.n_rejected for kind in self.kinds)

    def batch(self, step: int, share: slice = slice(None)) -> GapBatch:
        """The batch of `step`: of the kind whose turn it is."""
        n = len(self.kinds)
        return self.kinds[step % n].batch(step // n, share)

    def close(self) -> None:
        """End the readers of all kinds."""
        for kind in self.kinds:
            kind.close()


class GapBatches(SlabCrops):
    """Batches by step, of `batch_size` gaps. `ratios`: weight of each r; the cuts are as deep as the largest.

    `reach`: sections beyond the gap's own two, each side. `grey`: mean and deviation that grey levels are
    standardised by; those of each volume if None.
    """

    def __init__(
        self,
        pool: SlabPool,
        ratios: Mapping[int, float],
        batch_size: int,
        variation: Variation = Variation(),
        reach: int = 0,
        grey: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(pool, variation.least_contrast)
        self.reach, self.grey = reach, grey
        self.ratios = dict(ratios)
        self.batch_size = batch_size
        self.variation = variation

    def ratio(self, step: int) -> int:
        """The r of all gaps of a step."""
        weights = np.array(list(self.ratios.values()))
        rng = generator(self.seed, self.cut.number, RATIOS, step)
        return int(rng.choice(list(self.ratios), p=weights / weights.sum()))

    def batch(self, step: int, share: slice = slice(None)) -> GapBatch:
        """The batch of `step`, or a share of it: what one of several processes takes. Raises as `draw`."""
        ratio = self.ratio(step)
        first = step * self.batch_size
        numbers = range(first, first + self.batch_size)[share]
        planes = torch.from_numpy(np.stack([self._sample(number, ratio) for number in numbers]))
        return GapBatch(planes[:, ::ratio].contiguous(), planes[:, 1:-1].contiguous(), ratio)

    def _sample(self, number: int, ratio: int) -> Floats:
        """Gap `number` since the beginning: (planes, row, column), every r-th a section."""

        def cut_out(rng: np.random.Generator, held: HeldSlab) -> Crop:
            planes = cropped(rng, held, self.cut, (1 + 2 * self.reach) * ratio)
            return Crop(planes[::ratio], planes)

        rng, crop, contrast = self.draw(number, cut_out)
        return augment(rng, crop.truth, self.cut, self.grey or contrast, self.variation, ratio)


def cropped(rng: np.random.Generator, held: HeldSlab, cut: CropSpec, span: int) -> Voxels:
    """A gap of a slab, evenly drawn: (span + 1, row of the source, column), a view."""
    z, y, x = (evenly(rng, held.slab.first) - held.slab.box.start).tolist()
    dz, dy, dx = cut.extent
    deep = cut.oriented(held.voxels[z : z + dz, y : y + dy, x : x + dx])
    offset = int(rng.integers(cut.depth - span))
    return deep[offset : offset + span + 1]


def augment(
    rng: np.random.Generator,
    crop: Voxels,
    cut: CropSpec,
    contrast: tuple[float, float],
    variation: Variation,
    ratio: int,
) -> Floats:
    """A crop as it is trained on: standardised grey, resampled where the cut says so, flipped, blurred."""
    from scipy import ndimage  # networks that are trained otherwise do not need it

    mean, deviation = contrast
    grey = (crop.astype(np.float32) - mean) * (
        rng.uniform(1 - variation.gain, 1 + variation.gain) / deviation
    )
    phase = int(rng.integers(cut.upsampling))
    grey = resampled(grey.astype(np.float32), cut, phase)
    grey = grey[:: _sign(rng), :: _sign(rng), :: _sign(rng)]
    if rng.random() < variation.quarter_turns and cut.rows == cut.columns:
        grey = grey.swapaxes(1, 2)
    grey = np.ascontiguousarray(cut.as_seen(grey))
    for section in range(0, len(grey), ratio):
        if rng.random() < variation.blur:
            grey[section] = ndimage.gaussian_filter(
                grey[section], BLUR_SIGMA_PX, radius=BLUR_RADIUS_PX, mode="mirror"
            )
        if variation.noise:
            grey[section] += rng.normal(0, variation.noise, grey[section].shape)
    return grey


def resampled(grey: Floats, cut: CropSpec, phase: int = 0) -> Floats:
    """Rows between those of the source, by linear interpolation, `phase` new rows further on.

    (plane, cut.source_rows, column) -> (plane, cut.rows, column); unchanged where the cut resamples nothing.
    """
    if cut.upsampling == 1:
        return grey
    at = (np.arange(cut.rows) + phase) / cut.upsampling
    lower = at.astype(int)
    t = (at - lower).astype(np.float32)[:, None]
    between: Floats = grey[:, lower] * (1 - t) + grey[:, lower + 1] * t
    return between


def _sign(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1
