"""Gaps cut from isotropic volumes: two sections and the true planes between them.

        z0          z0 + 1 .. z0 + r - 1        z0 + r
     section             targets                section        (r drawn anew for every batch)

A batch is a function of (seed, step), so training resumes where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.volume import Voxels

# Microscopes scan along x: texture there differs from that along y (in FIB-25 the upper half of the spectrum
# holds 1.6 times more along y). A network trained on half quarter turns gave both axes the same texture.
QUARTER_TURNS = 0.1


@dataclass(frozen=True, slots=True)
class GapBatch:
    """`sections` (b, 2, y, x) and `targets` (b, r - 1, y, x), standardised grey, float32."""

    sections: Tensor
    targets: Tensor
    ratio: int


@dataclass(frozen=True, slots=True)
class TrainingVolume:
    """uint8 voxels (zyx) with the mean and deviation of their grey levels."""

    voxels: Voxels
    mean: float
    std: float

    @classmethod
    def of(cls, voxels: Voxels) -> TrainingVolume:
        """The volume with its contrast measured."""
        return cls(voxels, float(voxels.mean()), float(voxels.std()))


@dataclass(frozen=True, slots=True)
class GapSampler:
    """Random gaps of `volumes`, drawn in proportion to their size.

    `ratios`: weight of each r. Augmentation: flips of the plane, z reversal, few
    quarter turns, and a gain of up to 10 %, because the contrast of a new volume is only estimated.
    """

    volumes: Sequence[TrainingVolume]
    ratios: dict[int, float]
    crop_px: int = 64
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        needed = (max(self.ratios) + 1, self.crop_px, self.crop_px)
        for volume in self.volumes:
            if any(n < m for n, m in zip(volume.voxels.shape, needed, strict=True)):
                raise PlanError(
                    f"training volume of {volume.voxels.shape} voxels; at least {needed} are needed"
                )

    def batch(self, step: int) -> GapBatch:
        """The batch of `step`."""
        rng = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, 0, step]))
        weights = np.array(list(self.ratios.values()))
        ratio = int(rng.choice(list(self.ratios), p=weights / weights.sum()))
        planes = np.stack([self._draw(rng, ratio) for _ in range(self.batch_size)])
        stack = torch.from_numpy(planes)
        return GapBatch(stack[:, [0, -1]].contiguous(), stack[:, 1:-1].contiguous(), ratio)

    def _draw(self, rng: np.random.Generator, ratio: int) -> NDArray[np.float32]:
        sizes = np.array([v.voxels.size for v in self.volumes], dtype=float)
        volume = self.volumes[int(rng.choice(len(sizes), p=sizes / sizes.sum()))]
        size = (ratio + 1, self.crop_px, self.crop_px)
        z, y, x = (int(rng.integers(n - m + 1)) for n, m in zip(volume.voxels.shape, size, strict=True))
        crop = volume.voxels[z : z + size[0], y : y + size[1], x : x + size[2]]
        turned = crop[:: _sign(rng), :: _sign(rng), :: _sign(rng)]
        turned = turned.swapaxes(1, 2) if rng.random() < QUARTER_TURNS else turned
        grey = (turned.astype(np.float32) - volume.mean) * (rng.uniform(0.9, 1.1) / volume.std)
        return np.ascontiguousarray(grey, dtype=np.float32)


def _sign(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1
