"""Gaps as microscopes would have cut them, out of isotropic volumes.

    isotropic voxels --z--> sections: boxes as thick as sections          --y, x--> pixels of another size,
                     `--z--> planes:  boxes as thick as planes                      blur, noise

All resampling is separable: each axis is one matrix of box means (`box_means`), so a box of one voxel at a
voxel's centre returns that voxel, unchanged. Sections are shifted and sheared, each by itself, and change in
gain and offset; planes are not: what is wanted is the plane in its right place. Noise comes after
resampling, since pixels of another size would have had noise of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

MARGIN_PX = 4


@dataclass(frozen=True, slots=True)
class Cutting:
    """How a gap is cut. Lengths in voxels of the isotropic volume unless they end in px.

    `ratio`: r; `plane_step`: distance of planes, so the gap is ratio * plane_step wide; `pixel`: size of
    pixels; `section`, `plane`: thickness of sections and of generated planes.
    """

    ratio: int
    plane_step: float = 1.0
    pixel: float = 1.0
    section: float = 1.0
    plane: float = 1.0

    @property
    def gap(self) -> float:
        """Width of the gap, in voxels."""
        return self.ratio * self.plane_step

    @property
    def depth(self) -> int:
        """Planes of the isotropic volume that three gaps need."""
        return int(np.ceil(3 * self.gap + max(self.section, 1.0))) + 2

    def extent(self, crop_px: int) -> int:
        """Rows, or columns, of the isotropic volume that a crop needs."""
        return int(np.ceil((crop_px + 2 * MARGIN_PX - 1) * self.pixel + max(self.pixel, 1.0))) + 2


@dataclass(frozen=True, slots=True)
class Imaging:
    """What a microscope does to the picture of a section. Grey is in deviations of the volume.

    `blur_px`: of the optics. `white`, `grain`, `grain_px`: deviation of noise of single pixels, and of
    noise that is smooth over `grain_px`. `dose`: how much the noise grows with grey (Poisson).
    `gain`, `offset`: deviations over sections. `shift_px`, `shear`: deviations of what alignment left.
    """

    blur_px: float = 0.0
    white: float = 0.0
    grain: float = 0.0
    grain_px: float = 1.0
    dose: float = 0.0
    gain: float = 0.0
    offset: float = 0.0
    shift_px: float = 0.0
    shear: float = 0.0

    @property
    def noise_variance(self) -> float:
        """Of both kinds of noise, at mean grey."""
        return self.white**2 + self.grain**2


class CutGap(NamedTuple):
    """`sections`: (4, y, x); `clean`, `noisy`: planes, (n, y, x); `noise_variance` of these: (n, y, x)."""

    sections: Tensor
    clean: Tensor
    noisy: Tensor
    noise_variance: Tensor


def cut_gap(
    voxels: Tensor,
    cutting: Cutting,
    imaging: Imaging,
    crop_px: int,
    rng: torch.Generator,
    ends: Sequence[float] = (),
) -> CutGap:
    """A gap with one section more on either side, out of isotropic `voxels`.

    `voxels`: (cutting.depth, e, e) float32 with e = cutting.extent(crop_px), in deviations of the volume.
    `ends`: 0, 1 or both: further planes, at the gap's own sections. Such a plane is the mean of those one
    voxel below and above: it shows what the section shows, and noise of its own.
    """
    lower = (voxels.shape[0] - 1 - cutting.gap) / 2
    if cutting.plane_step == 1:  # planes are voxels of the volume, not means of two
        lower = math.floor(lower)
    at_sections = lower + cutting.gap * torch.arange(-1.0, 3.0)
    at_planes = lower + cutting.plane_step * torch.arange(1.0, cutting.ratio)
    sections = torch.tensordot(box_means(at_sections, cutting.section, voxels.shape[0]), voxels, 1)
    at_ends = lower + cutting.gap * torch.tensor(ends)
    wanted = [box_means(at_planes, cutting.plane, voxels.shape[0])]
    if ends:
        below, above = (box_means(at_ends + d, cutting.plane, voxels.shape[0]) for d in (-1, 1))
        wanted.append((below + above) / 2)
    planes = torch.tensordot(torch.cat(wanted), voxels, 1)
    wide, narrow = (_pixels(voxels.shape[1], cutting, imaging, crop_px + 2 * m) for m in (MARGIN_PX, 0))
    sections = _misaligned(_through(sections, wide), imaging, rng)
    clean = _through(planes, narrow)
    sections = sections + _noise(sections, imaging, rng)
    sections = sections * (1 + imaging.gain * _randn(rng, 4, 1, 1)) + imaging.offset * _randn(rng, 4, 1, 1)
    noisy = clean + _noise(clean, imaging, rng)
    return CutGap(sections, clean, noisy, imaging.noise_variance * _growth(clean, imaging))


def box_means(centres: Tensor, width: float, n: int) -> Tensor:
    """Weights of n voxels in boxes around `centres`: (m, n), each row of sum 1.

    Voxel i reaches from i - 0.5 to i + 0.5. Boxes are at least one voxel wide: then, at whole numbers, a row
    picks one voxel, and elsewhere it interpolates linearly.
    """
    half = max(width, 1.0) / 2
    edges = torch.arange(n + 1) - 0.5
    covered = edges.clamp((centres - half)[:, None], (centres + half)[:, None])
    return (covered[:, 1:] - covered[:, :-1]) / (2 * half)


def gaussian(n_out: int, n_in: int, sigma: float) -> Tensor:
    """A matrix that blurs n_in pixels and keeps the middle n_out: (n_out, n_in), rows of sum 1."""
    at = torch.arange(n_out) + (n_in - n_out) / 2
    distance = at[:, None] - torch.arange(n_in)
    weights = torch.exp(-0.5 * (distance / max(sigma, 1e-3)).square())
    return weights / weights.sum(dim=1, keepdim=True)


def _pixels(n: int, cutting: Cutting, imaging: Imaging, size_px: int) -> Tensor:
    """From rows of the volume to `size_px` rows of pixels, blurred: (size_px, n)."""
    more = size_px + (0 if imaging.blur_px == 0 else 2 * MARGIN_PX)
    middle = torch.tensor((n - 1) // 2 if cutting.pixel == 1 else (n - 1) / 2)
    offset = more // 2 if cutting.pixel == 1 else (more - 1) / 2
    rows = box_means(middle + (torch.arange(more) - offset) * cutting.pixel, cutting.pixel, n)
    return rows if imaging.blur_px == 0 else gaussian(size_px, more, imaging.blur_px) @ rows


def _through(planes: Tensor, axis: Tensor) -> Tensor:
    return axis @ planes @ axis.T


def _misaligned(sections: Tensor, imaging: Imaging, rng: torch.Generator) -> Tensor:
    """Sections without their margin, each moved a little."""
    m, size = MARGIN_PX, sections.shape[-1]
    if imaging.shift_px == imaging.shear == 0:
        return sections[:, m:-m, m:-m]
    moves = torch.eye(2, 3).repeat(len(sections), 1, 1) * (size - 2 * m) / size
    moves[:, :, :2] += imaging.shear * _randn(rng, len(sections), 2, 2)
    moves[:, :, 2] += imaging.shift_px * 2 / size * _randn(rng, len(sections), 2).clamp(-2, 2)
    grid = F.affine_grid(moves, [len(sections), 1, size - 2 * m, size - 2 * m], align_corners=False)
    return F.grid_sample(
        sections[:, None], grid, mode="bicubic", padding_mode="reflection", align_corners=False
    )[:, 0]


def _noise(clean: Tensor, imaging: Imaging, rng: torch.Generator) -> Tensor:
    if imaging.noise_variance == 0:
        return torch.zeros_like(clean)
    noise = imaging.white * _randn(rng, *clean.shape)
    if imaging.grain:
        size = clean.shape[-1]
        wide = size + 6
        blur = gaussian(size, wide, imaging.grain_px)
        grain = blur @ _randn(rng, len(clean), wide, wide) @ blur.T
        noise = noise + imaging.grain / float(blur[size // 2].square().sum()) * grain
    return noise * _growth(clean, imaging).sqrt()


def _growth(clean: Tensor, imaging: Imaging) -> Tensor:
    """Variance of noise at each grey over that at mean grey: Poisson, 1 + dose * grey."""
    return (1 + imaging.dose * clean).clamp(0.2, 3.0)


def _randn(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=rng)
