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
    """What a model is given of a batch of tiles of one gap.

    `sections`: (b, 2 + 2 * reach, y, x) float32 grey levels 0..255, ascending in z, the gap's own two in
    the middle; beyond the ends of the volume they are mirrored. `positions`: (n,) float64 in (0, 1).
    `ratio`: width of the gap in planes, which need not be whole.

    Of a section that is restored: (b, 1, y, x), with `card.halo_px` pixels of the source around the tile and
    mirrored at the edges of the volume; one position, 0, and ratio 1.
    """

    sections: Tensor
    positions: Tensor
    ratio: float


@dataclass(frozen=True, slots=True)
class Settings:
    """How a model is used. `contrast`: mean and deviation of the volume's grey levels; one-pass networks
    need neither `steps`, evaluations for a sample, nor `sampler`.
    """

    steps: int = 1
    sampler: str = ""
    contrast: tuple[float, float] = (0.0, 1.0)
    precision: str = "float32"


class Model(Protocol):
    """Fills gaps. A diffusion model, a one-pass network and an interpolation are the same kind of thing."""

    @property
    def card(self) -> ModelCard:
        """Its facts."""
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


def tile_by_tile(generate: Callable[[GapView, Noise], Tensor], gap: GapView, noise: Noise) -> Tensor:
    """`generate` of a batch of tiles; of each by itself on a CPU, where layers round otherwise in a batch."""
    if gap.sections.device.type != "cpu" or len(gap.sections) == 1:
        return generate(gap, noise)

    def one(i: int) -> Tensor:
        tile = GapView(gap.sections[i : i + 1], gap.positions, gap.ratio)
        return generate(tile, lambda step: noise(step)[i : i + 1])

    return torch.cat([one(i) for i in range(len(gap.sections))])
