"""Batches of gaps, cut and imaged by a recipe out of isotropic volumes that are in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemdiffuse_pipe.models.gap_networks import condition_values
from vemdiffuse_pipe.training.microscope import CutGap, Cutting, Imaging, cut_gap
from vemdiffuse_pipe.training.recipes import Recipe

RATIOS = dict(
    zip(range(2, 13), (0.03, 0.09, 0.11, 0.19, 0.1, 0.07, 0.13, 0.06, 0.12, 0.04, 0.06), strict=True)
)
MIRRORED = 0.08  # share of gaps of which the further section on one side is not there
QUARTER_TURNS = 0.1
CONTRAST = (0.87, 1.15)


@dataclass(frozen=True, slots=True)
class DegradedGaps:
    """A batch of gaps, float32, standardised grey.

    `sections`: (b, 4, y, x); `clean`, `noisy`: (b, n, y, x), planes without the noise of the microscope and
    with it; `noise_variance`: (b, n, y, x); `conditions`: (b, N_CONDITIONS); all gaps have `ratio`.
    `positions`: (n,), of the planes in the gap.
    """

    sections: Tensor
    clean: Tensor
    noisy: Tensor
    noise_variance: Tensor
    conditions: Tensor
    positions: Tensor
    ratio: int

    def to(self, device: str | torch.device) -> DegradedGaps:
        """The batch on `device`."""
        return DegradedGaps(
            self.sections.to(device),
            self.clean.to(device),
            self.noisy.to(device),
            self.noise_variance.to(device),
            self.conditions.to(device),
            self.positions.to(device),
            self.ratio,
        )


@dataclass(frozen=True)
class DegradedBatches:
    """Batches by step: a function of (seed, step).

    `volumes`: isotropic, uint8. `ratios`: weight of each r. `end_share`: share of batches of which one plane
    more lies at a section of the gap.
    """

    volumes: Sequence[NDArray[np.uint8]]
    recipe: Recipe = field(default_factory=Recipe)
    ratios: Mapping[int, float] = field(default_factory=lambda: RATIOS)
    batch_size: int = 16
    crop_px: int = 64
    seed: int = 0
    end_share: float = 0.0

    @cached_property
    def contrast(self) -> list[tuple[float, float]]:
        """Mean and deviation of each volume."""
        return [(float(v.mean()), float(v.std())) for v in self.volumes]

    def batch(self, step: int) -> DegradedGaps:
        """The batch of `step`."""
        rng = np.random.default_rng((self.seed, step))
        weights = np.array(list(self.ratios.values()))
        ratio = int(rng.choice(list(self.ratios), p=weights / weights.sum()))
        ends = (float(rng.integers(2)),) if self.end_share and rng.random() < self.end_share else ()
        gaps, conditions = zip(*(self._gap(ratio, ends, rng) for _ in range(self.batch_size)), strict=True)
        sections, clean, noisy, variance = (torch.stack(parts) for parts in zip(*gaps, strict=True))
        positions = torch.tensor([*(j / ratio for j in range(1, ratio)), *ends])
        return DegradedGaps(sections, clean, noisy, variance, torch.tensor(conditions), positions, ratio)

    def _gap(
        self, ratio: int, ends: Sequence[float], rng: np.random.Generator
    ) -> tuple[CutGap, tuple[float, ...]]:
        cutting, imaging = self.recipe.draw(ratio, rng)
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        voxels = _turned(torch.from_numpy(self._voxels(cutting, rng)), rng)
        gap = cut_gap(voxels, cutting, imaging, self.crop_px, generator, ends)
        gap = _one_sided(gap, rng) if rng.random() < MIRRORED else gap
        return _standardised(gap, cutting, imaging, rng.uniform(*CONTRAST)), conditions_of(
            cutting, self.recipe.voxel_nm
        )

    def _voxels(self, cutting: Cutting, rng: np.random.Generator) -> NDArray[np.float32]:
        """A box of a volume, evenly drawn, in deviations."""
        n = cutting.extent(self.crop_px)
        extent = (cutting.depth, n, n)
        rooms = [np.subtract(v.shape, extent) + 1 for v in self.volumes]
        weights = np.array([float(np.prod(np.maximum(room, 0))) for room in rooms])
        i = int(rng.choice(len(rooms), p=weights / weights.sum()))
        z, y, x = rng.integers(rooms[i])
        box = self.volumes[i][z : z + extent[0], y : y + n, x : x + n]
        mean, deviation = self.contrast[i]
        return (box.astype(np.float32) - np.float32(mean)) / np.float32(deviation)


def conditions_of(cutting: Cutting, voxel_nm: float) -> tuple[float, ...]:
    """What a network is told of a gap."""
    gap = cutting.gap
    return condition_values(
        gap / cutting.pixel, cutting.pixel * voxel_nm, cutting.section / gap, cutting.plane / gap
    )


def _turned(voxels: Tensor, rng: np.random.Generator) -> Tensor:
    axes = [axis for axis in range(3) if rng.random() < 0.5]
    turned = voxels.flip(axes)
    return turned.transpose(1, 2) if rng.random() < QUARTER_TURNS else turned


def _one_sided(gap: CutGap, rng: np.random.Generator) -> CutGap:
    """The gap at the end of a volume, which is mirrored there."""
    below, lower, upper, above = gap.sections
    if rng.random() < 0.5:
        below = upper
    else:
        above = lower
    return CutGap(torch.stack([below, lower, upper, above]), gap.clean, gap.noisy, gap.noise_variance)


def _standardised(gap: CutGap, cutting: Cutting, imaging: Imaging, factor: float) -> CutGap:
    """Deviations of the volume -> of what the microscope would have made of it, times `factor`.

    Thick sections vary less: measured on FIB-25, 1.1 % a voxel of thickness.
    """
    own = (1 - 0.011 * min(max(cutting.section, 1.0) - 1, 20.0)) ** 2 + imaging.noise_variance
    scale = factor / float(np.sqrt(own))
    return CutGap(gap.sections * scale, gap.clean * scale, gap.noisy * scale, gap.noise_variance * scale**2)
