"""Sizes of the lean network."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from vemdiffuse_pipe.models.sizes.protocol import CHECKED, Count, Width, Widths


@dataclass(frozen=True, slots=True)
class LeanConfig:
    """Sizes of the lean network: channels at 1/2, 1/4, ... of the resolution; residual blocks a level."""

    channels: Widths = (64, 128, 192)
    n_blocks: Count = 2
    n_basis: Width = 12
    n_embedding: Width = 128

    __pydantic_config__ = CHECKED
    tile_px = 0
    reach_sections = 0
    ratio = 0

    @property
    def context_px(self) -> int:
        """How far, in pixels, an input can lie from an output that it changes."""
        n_levels = len(self.channels)
        reach = 4  # the kernels in and out, at half resolution
        for level in range(n_levels):
            reach += (2 << level) * 2 * self.n_blocks * (1 if level == n_levels - 1 else 2)
        return reach + (1 << n_levels) - 1

    @property
    def multiple_px(self) -> int:
        """Tiles must be a multiple of this, in pixels, and lie on multiples of it."""
        return 1 << len(self.channels)

    def flop_per_pixel(self, n_planes: int) -> float:
        """Its convolutions."""
        total = 2.0 * 9 * self.channels[0] * (2 + 2 * n_planes)
        for level, c in enumerate(self.channels):
            n_stages = 1 if level == len(self.channels) - 1 else 2
            total += n_stages * self.n_blocks * 2 * 18 * c * c / 4.0 ** (level + 1)
        for level, (a, b) in enumerate(pairwise(self.channels)):
            total += 2 * (2 * 4 * a * b) / 4.0 ** (level + 2)
        return total

    def bytes_per_pixel(self, n_planes: int, itemsize: int) -> int:
        """Measured: 950 to 1,130 for the default in float32."""
        return 16 * itemsize * self.channels[0] // 4 + 32 * n_planes
