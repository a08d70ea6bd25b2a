"""Sizes of UDiM, and the residual blocks that they make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from vemdiffuse_pipe.models.sizes.protocol import CHECKED, Count, TilePx, Width


@dataclass(frozen=True, slots=True)
class UdimBlock:
    """A residual block of UDiM. `level`: of its output; `resize`: 1 up, -1 down, 0 neither."""

    c_in: int
    c_out: int
    level: int
    resize: int = 0

    @property
    def flop(self) -> float:
        """Operations per pixel of the plane."""
        skip = 0 if self.c_in == self.c_out else self.c_in * self.c_out
        weights = 9 * self.c_in * self.c_out + 9 * self.c_out**2 + skip
        return 2.0 * weights / 4.0**self.level


@dataclass(frozen=True, slots=True)
class UdimConfig:
    """Sizes of UDiM. The defaults are the published ones: 16,615,873 parameters.

    `n_conditions`: 2, the sections; 1, their interpolation. `ratio`: r, where it knows the r - 1 planes by
    their numbers; else 0. `has_difficulty`: a second output, the logarithm of a variance.
    """

    inner: Width = 32
    multipliers: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)] = (1, 2, 4, 8)
    n_blocks: Count = 2
    n_groups: Width = 32
    head: Width = 32
    n_conditions: Annotated[int, Field(ge=1, le=2)] = 2
    ratio: Annotated[int, Field(ge=0, le=1024)] = 6
    has_difficulty: bool = False
    tile_px: TilePx = 256

    __pydantic_config__ = CHECKED
    reach_sections = 0

    def __post_init__(self) -> None:
        if self.inner % self.n_groups or self.widths[-1] % self.head or self.ratio == 1:
            raise ValueError(
                f"{self.inner} channels in {self.n_groups} groups, {self.widths[-1]} in heads of "
                f"{self.head}, ratio {self.ratio}: groups and heads must be whole, and the ratio 2 or more"
            )

    @property
    def context_px(self) -> int:
        """The whole tile: normalisation and attention look everywhere."""
        return self.tile_px

    @property
    def multiple_px(self) -> int:
        """Halved once a level."""
        return 1 << (len(self.multipliers) - 1)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.inner * m for m in self.multipliers)

    @property
    def n_embedding(self) -> int:
        """Length of the embedding of the noise level; as much again for the layer."""
        return 4 * self.inner

    def down(self) -> Iterator[UdimBlock]:
        """Blocks on the way down, in order; the output of each is kept for the way up."""
        channels = self.inner
        for level, width in enumerate(self.widths):
            for _ in range(self.n_blocks):
                yield UdimBlock(channels, width, level)
                channels = width
            if level < len(self.widths) - 1:
                yield UdimBlock(width, width, level + 1, -1)

    def up(self) -> Iterator[UdimBlock]:
        """Blocks on the way up; one that does not resize is given what was kept beside what came."""
        kept = [self.inner, *(block.c_out for block in self.down())]
        channels = self.widths[-1]
        for level in reversed(range(len(self.widths))):
            width = self.widths[level]
            for _ in range(self.n_blocks + 1):
                yield UdimBlock(channels + kept.pop(), width, level)
                channels = width
            if level:
                yield UdimBlock(width, width, level - 1, 1)

    def flop_per_pixel(self, n_planes: int) -> float:
        """Convolutions and attention; every plane is evaluated by itself."""
        deepest, width = len(self.widths) - 1, self.widths[-1]
        middle = UdimBlock(width, width, deepest).flop
        n_tokens = (self.tile_px >> deepest) ** 2
        attention = (2.0 * 4 * width**2 + 4.0 * n_tokens * width) / 4.0**deepest
        n_out = 2 if self.has_difficulty else 1
        ends = 2.0 * 9 * self.inner * (self.n_conditions + 1) + 2.0 * 9 * self.widths[0] * n_out
        blocks = sum(block.flop for block in (*self.down(), *self.up()))
        return n_planes * (blocks + 2 * middle + attention + ends)

    def bytes_per_pixel(self, n_planes: int, itemsize: int) -> int:
        """What is kept for the way up, the widest block, and attention, of the planes evaluated at once."""
        kept = self.inner + sum(block.c_out / 4.0**block.level for block in self.down())
        widest = max((2 * block.c_in + 3 * block.c_out) / 4.0**block.level for block in self.up())
        n_heads = max(1, self.widths[-1] // self.head)
        attention = 2 * n_heads * (self.tile_px >> (len(self.widths) - 1)) ** 2 / self.multiple_px**2
        share = (
            0.44 + 0.165 * itemsize
        )  # measured at 256 px: 2,990 in float32, 2,030 in bfloat16, for 2 planes
        return int(4 * share * (kept + widest + attention)) + 32 * n_planes
