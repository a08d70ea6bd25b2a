"""Sizes of plain networks that restore one image: what `kinds` says of networks that fill gaps.

An image that is to be doubled is given to them doubled, linearly. To a checkpoint their one image is both
sections of a gap of two, so that is the ratio that they serve.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from vemdiffuse_pipe.models.sizes.protocol import CHECKED, Count, Few, Width


@dataclass(frozen=True, slots=True)
class RcanConfig:
    """Sizes; the paper's are 10 groups of 20 blocks of 64 channels, attention through a sixteenth of them."""

    n_groups: Count = 10
    n_blocks: Count = 20
    channels: Width = 64
    reduction: Width = 16
    tile_px: Annotated[int, Field(ge=2, le=2**13, multiple_of=2)] = 256

    __pydantic_config__ = CHECKED
    reach_sections = 0
    ratio = 2
    multiple_px = 2

    @property
    def context_px(self) -> int:
        """The whole tile: attention is paid to its mean."""
        return self.tile_px

    def flop_per_pixel(self, n_planes: int) -> float:
        """Its 3 x 3 convolutions."""
        n_convs = self.n_groups * (2 * self.n_blocks + 1) + 1
        return n_planes * 18.0 * (n_convs * self.channels**2 + 2 * self.channels)

    def bytes_per_pixel(self, n_planes: int, itemsize: int) -> int:
        """A block under way. Measured for 64 channels: 1,540 in float32, 770 in bfloat16."""
        return 8 * itemsize * self.channels + 32


@dataclass(frozen=True, slots=True)
class PssrConfig:
    """Sizes: channels and residual blocks at 1, 1/2, 1/4, ... of the resolution; those of 34 layers."""

    channels: Annotated[tuple[Width, ...], Field(min_length=2, max_length=8)] = (64, 64, 128, 256, 512)
    n_blocks: Annotated[tuple[Few, ...], Field(min_length=2, max_length=8)] = (0, 3, 4, 6, 3)

    __pydantic_config__ = CHECKED
    tile_px = 0
    reach_sections = 0
    ratio = 2

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.n_blocks):
            raise ValueError(
                f"channels {self.channels}, n_blocks {self.n_blocks}: as many are needed of both"
            )

    @property
    def multiple_px(self) -> int:
        """Halved once a level."""
        return 1 << (len(self.channels) - 1)

    @property
    def context_px(self) -> int:
        """A pixel for every convolution, at the level's resolution."""
        blocks = sum(2 * n << level for level, n in enumerate(self.n_blocks))
        return 2 + blocks + 3 * (self.multiple_px - 1) + self.multiple_px - 1

    def flop_per_pixel(self, n_planes: int) -> float:
        """Its convolutions."""
        flop = 18.0 * 2 * self.channels[0]
        for level, (n, c) in enumerate(zip(self.n_blocks, self.channels, strict=True)):
            flop += 2 * n * 18.0 * c * c / 4**level
        for level, (a, b) in enumerate(pairwise(self.channels)):
            flop += (18.0 * a * b + 2.0 * 4 * a * b) / 4 ** (level + 1)  # down, and the shuffle up
            flop += (18.0 * 2 * a * a + 18.0 * a * a) / 4**level
        return n_planes * flop

    def bytes_per_pixel(self, n_planes: int, itemsize: int) -> int:
        """The finest level on the way up. Measured for the default: 2,240 in float32, 990 in bfloat16."""
        return 12 * itemsize * max(self.channels[0], self.channels[1] // 2) + 32
