"""Sizes of the three-dimensional network that upsamples along z."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from vemdiffuse_pipe.models.sizes.protocol import CHECKED, Count, TilePx, Widths


@dataclass(frozen=True, slots=True)
class Sru3dConfig:
    """Sizes of the three-dimensional network that upsamples along z: channels of each level, ratio.

    `reach`: sections beyond the gap's own two that it is given, each side.
    """

    channels: Widths = (32, 64, 128)
    n_convolutions: Count = 3
    ratio: Annotated[int, Field(ge=2, le=1024)] = 6
    reach: Annotated[int, Field(ge=0, le=8)] = 1
    tile_px: TilePx = 128

    __pydantic_config__ = CHECKED

    @property
    def reach_sections(self) -> int:
        """Sections beyond the gap's own two."""
        return self.reach

    @property
    def multiple_px(self) -> int:
        """Halved once a level."""
        return 1 << (len(self.channels) - 1)

    @property
    def context_px(self) -> int:
        """A pixel for every convolution, at the level's resolution."""
        deepest = len(self.channels) - 1
        stages = sum((1 if level == deepest else 2) << level for level in range(deepest + 1))
        return 1 + self.n_convolutions * stages + (1 << deepest) - 1

    def flop_per_pixel(self, n_planes: int) -> float:
        """Convolutions: on the way down for every section, on the way up for every plane."""
        n_sections = 2 + 2 * self.reach
        n_rows, deepest = n_sections * self.ratio, len(self.channels) - 1
        total, before = 2.0 * 27 * self.channels[0] * n_rows, 1
        for level, c in enumerate(self.channels):
            area = 4.0**level
            down = 27 * c * (before + (self.n_convolutions - 1) * c)
            up = 0 if level == deepest else 27 * c * (2 * c + (self.n_convolutions - 1) * c)
            total += 2 * (n_sections * down + n_rows * up + n_rows * c * c) / area
            before = c
        for level, (a, b) in enumerate(pairwise(self.channels)):
            total += 2.0 * n_rows * a * b / 4.0**level
        return total

    def bytes_per_pixel(self, n_planes: int, itemsize: int) -> int:
        """The finest level on the way up. Measured at r = 3: 15,680 in float32, 6,070 in bfloat16."""
        return 11 * itemsize * self.channels[0] * (2 + 2 * self.reach) * self.ratio
