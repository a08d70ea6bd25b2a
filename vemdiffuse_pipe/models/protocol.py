"""What every model is to the renderer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vemdiffuse_pipe.models.card import ModelCard
from vemdiffuse_pipe.models.samplers import Noise


@dataclass(frozen=True, slots=True)
class GapView:
    """What a model is given of a batch of tiles: of one gap, or of one section that is restored."""

    sections: Tensor
    """(b, 2 + 2 * reach, y, x) float32 grey levels 0..255, ascending in z, the gap's two sections in the
    middle; beyond the ends of the volume they are mirrored. Of a restored section: (b, 1, y, x), with
    `card.halo_px` pixels of the source around the tile, mirrored at the edges of the volume."""
    positions: Tensor
    """(n,) float64 in (0, 1), where the wanted planes lie; of a restored section 0."""
    ratio: float
    """Width of the gap in planes, which need not be whole; of a restored section 1."""


@dataclass(frozen=True, slots=True)
class Sectioning:
    """How a volume was cut, and how planes are wanted."""

    pixel_nm: float = 10.0
    """Side of a pixel."""
    plane_step_nm: float = 10.0
    """Distance of planes: a gap of ratio r is r times as wide."""
    section_nm: float = 10.0
    """Thickness of sections."""
    plane_nm: float = 10.0
    """Thickness that generated planes are to have."""


ISOTROPIC = Sectioning()  # thin planes of 10 nm, as FIB-SEM makes them


@dataclass(frozen=True, slots=True)
class Settings:
    """How a model is used; one-pass networks need neither `steps` nor `sampler`."""

    steps: int = 1
    """Evaluations for a sample."""
    sampler: str = ""
    """One of `kinds.SAMPLERS`."""
    contrast: tuple[float, float] = (0.0, 1.0)
    """Mean and deviation of the volume's grey levels."""
    precision: str = "float32"
    """Arithmetic of the network: float32 or bfloat16."""
    sectioning: Sectioning = ISOTROPIC
    """For networks that are told."""


class Model(Protocol):
    """Fills gaps. A diffusion model, a one-pass network and an interpolation are the same kind of thing."""

    @property
    def card(self) -> ModelCard:
        """What the model is: kind, sizes, ratios that it serves, how it is sampled."""
        ...

    def generate(self, gap: GapView, noise: Noise) -> Tensor:
        """The planes between: (b, n, y, x) float32 grey levels, one sample for each of the b tiles.

        Of a section that is restored: the tile without its halo, `card.scale` pixels for one along y and x.
        `noise`: (b, n, y, x) normal deviates, those of the voxels; ignored unless `card.is_stochastic`.
        `noise(step)`: (b, n, y, x) normal deviates, those of the voxels; step 0 is where a sample starts, 1
        and on are for the steps of a stochastic sampler. Not asked for unless `card.is_stochastic`.
        Each tile's planes are a function of that tile's inputs alone.
        """
        ...


class EstimatingModel(Model, Protocol):
    """A model that answers once as well, and says how far off it expects to be (`card.has_estimate`)."""

    def estimate(self, gap: GapView) -> tuple[Tensor, Tensor]:
        """(best estimate, its deviation) of the planes between: (b, n, y, x) float32 grey levels each.

        Each tile's planes are a function of that tile's inputs alone.
        """
        ...


def tile_by_tile(generate: Callable[[GapView, Noise], Tensor], gap: GapView, noise: Noise) -> Tensor:
    """`generate` of a batch of tiles; of each by itself on a CPU, where layers round otherwise in a batch."""
    if gap.sections.device.type != "cpu" or len(gap.sections) == 1:
        return generate(gap, noise)

    def one(i: int) -> Tensor:
        tile = GapView(gap.sections[i : i + 1], gap.positions, gap.ratio)
        return generate(tile, lambda step: noise(step)[i : i + 1])

    return torch.cat([one(i) for i in range(len(gap.sections))])
