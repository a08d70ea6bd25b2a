"""Sizes of the estimator and of the sampler: context, tiles, operations, memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from vemdiffuse_pipe.models.sizes.protocol import CHECKED, Count, Width, Widths

Reach = Annotated[int, Field(ge=0, le=1)]

OWN_CHANNELS = 16  # of the path that each plane has past the trunk of the sampler


@dataclass(frozen=True, slots=True)
class EstimatorSizes:
    """Channels at 1/2, 1/4, ... of the resolution; residual blocks a level; kernels of position.

    `reach`: sections beyond the gap's own two that the network is given, each side.
    """

    channels: Widths = (48, 96, 192)
    n_blocks: Count = 2
    n_basis: Width = 16
    n_embedding: Width = 128
    reach: Reach = 1

    __pydantic_config__ = CHECKED
    tile_px = 0
    ratio = 0

    @property
    def reach_sections(self) -> int:
        """Sections beyond the gap's own two."""
        return self.reach

    @property
    def context_px(self) -> int:
        """How far, in pixels, an input can lie from an output that it changes."""
        return 4 + _trunk_context_px(len(self.channels), self.n_blocks)

    @property
    def multiple_px(self) -> int:
        """Tiles must be a multiple of this, in pixels, and lie on multiples of it."""
        return 1 << len(self.channels)

    def flop_per_pixel(self, n_planes: int) -> float:
        """Its convolutions: sections in, trunk, planes and their variances out."""
        first = self.channels[0]
        return 18.0 * first * (2 + 2 * self.reach + 2 * n_planes) + _trunk_flop(self.channels, self.n_blocks)

    def bytes_per_pixel(self, n_planes: int, itemsize: int) -> int:
        """Measured at r = 3 to 10: 600 to 680 in float32, 250 to 360 in bfloat16."""
        return 3 * itemsize * self.channels[0] + 80 + 10 * n_planes


@dataclass(frozen=True, slots=True)
class SamplerSizes:
    """As of the estimator, of a network that is given noisy planes as well."""

    channels: Widths = (48, 96, 192)
    n_blocks: Count = 2
    n_basis: Width = 16
    n_embedding: Width = 128
    reach: Reach = 1

    __pydantic_config__ = CHECKED
    tile_px = 0
    ratio = 0

    @property
    def estimator(self) -> EstimatorSizes:
        """Those of the estimator that shares a checkpoint with it."""
        return EstimatorSizes(**asdict(self))

    @property
    def reach_sections(self) -> int:
        """Sections beyond the gap's own two."""
        return self.reach

    @property
    def context_px(self) -> int:
        """How far, in pixels, an input can lie from an output that it changes: by a plane's own path."""
        return 6 + _trunk_context_px(len(self.channels), self.n_blocks)

    @property
    def multiple_px(self) -> int:
        """Tiles must be a multiple of this, in pixels, and lie on multiples of it."""
        return 1 << len(self.channels)

    def flop_per_pixel(self, n_planes: int) -> float:
        """Its convolutions: sections and planes in, trunk, planes out, and a path for each plane."""
        first, own = self.channels[0], OWN_CHANNELS
        path = (18.0 * (4 * own + own * own + 4 * own) + 2.0 * first * own) / 4
        shared = 18.0 * first * (2 + 2 * self.reach + 2 * n_planes)
        return shared + path * n_planes + _trunk_flop(self.channels, self.n_blocks)

    def bytes_per_pixel(self, n_planes: int, itemsize: int) -> int:
        """Measured at r = 3, 5, 10: 720, 550, 1,200 in float32, 330, 420, 690 in bfloat16."""
        return 3 * itemsize * self.channels[0] + 60 + (20 + 11 * itemsize) * n_planes


def _trunk_context_px(n_levels: int, n_blocks: int) -> int:
    """Two pixels a block and side at every level, whose pixels are 2, 4, ... wide, and the alignment."""
    reach = sum(
        (2 << level) * 2 * n_blocks * (1 if level == n_levels - 1 else 2) for level in range(n_levels)
    )
    return reach + (1 << n_levels) - 1


def _trunk_flop(channels: Sequence[int], n_blocks: int) -> float:
    total, deepest = 0.0, len(channels) - 1
    for level, c in enumerate(channels):
        total += (1 if level == deepest else 2) * n_blocks * 36.0 * c * c / 4.0 ** (level + 1)
    for level, (a, b) in enumerate(pairwise(channels)):
        total += 16.0 * a * b / 4.0 ** (level + 2)
    return total
