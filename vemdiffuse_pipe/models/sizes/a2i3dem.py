"""Sizes of the window-attention network that restores axial planes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from vemdiffuse_pipe.models.sizes.protocol import CHECKED, Count, Width, Widths

AXIAL_BATCH = 4  # axial planes in one call of the network


@dataclass(frozen=True, slots=True)
class AxialConfig:
    """Sizes of the window-attention network: channels of each level, blocks a stage, window, heads.

    `reach`: sections beyond the gap's own two that its axial planes hold, each side. `has_both_axes`: xz
    and yz planes are restored and averaged, else xz alone.
    """

    channels: Widths = (32, 64, 128)
    n_blocks: Count = 2
    window: Count = 8
    head: Width = 16
    reach: Annotated[int, Field(ge=0, le=8)] = 1
    has_both_axes: bool = False

    __pydantic_config__ = CHECKED
    tile_px = 0
    ratio = 0

    def __post_init__(self) -> None:
        if any(c % self.head for c in self.channels):
            raise ValueError(f"channels {self.channels} are not made of heads of {self.head}")

    @property
    def reach_sections(self) -> int:
        """Sections beyond the gap's own two."""
        return self.reach

    @property
    def multiple_px(self) -> int:
        """A window of the deepest level: windows then lie at the same places of the volume in every tile."""
        return self.window << (len(self.channels) - 1)

    @property
    def context_px(self) -> int:
        """A window and a pixel for every block, with the convolutions at both ends."""
        deepest = len(self.channels) - 1
        stages = sum((1 if level == deepest else 2) << level for level in range(deepest + 1))
        return 2 + self.n_blocks * stages * self.window + (1 << deepest) - 1

    def n_rows(self, n_planes: int) -> int:
        """Rows of an axial plane along z: the planes of every gap that is looked at, to whole windows."""
        rows = (1 + 2 * self.reach) * (n_planes + 1) + 1
        return -(-rows // self.multiple_px) * self.multiple_px

    def flop_per_pixel(self, n_planes: int) -> float:
        """Attention and the layers of every block, over the rows of an axial plane."""
        deepest, total = len(self.channels) - 1, 2.0 * 9 * 2 * self.channels[0]
        for level, c in enumerate(self.channels):
            attention = 2.0 * 4 * c * c + 4.0 * self.window**2 * c
            gated = 2.0 * 6 * c * c + 2.0 * 9 * 4 * c
            total += (1 if level == deepest else 2) * self.n_blocks * (attention + gated) / 4.0**level
        for level, (a, b) in enumerate(pairwise(self.channels)):
            total += 2 * (2.0 * 4 * a * b) / 4.0 ** (level + 1)
        return total * self.n_rows(n_planes) * (2 if self.has_both_axes else 1)

    def bytes_per_pixel(self, n_planes: int, itemsize: int) -> int:
        """All rows a few times in float32, and the activations of AXIAL_BATCH planes of a tile of 128 px.

        Measured for the default at r = 3: 2,610 at 192 px, 4,840 to 5,260 at 96 px, in either arithmetic.
        """
        return self.n_rows(n_planes) * (16 + 110 * self.channels[0] * AXIAL_BATCH // 128)
