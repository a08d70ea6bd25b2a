"""A box cut into blocks by arithmetic: nothing is enumerated, an index becomes a box in O(1).

shape = (.., 5, 7), block = (.., 2, 3)         the last blocks are cut at the edge
    +-----+-----+--+
    |  0  |  1  | 2|
    +-----+-----+--+
    |  3  |  4  | 5|
    +-----+-----+--+
    |  6  |  7  | 8|
    +-----+-----+--+
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vemdiffuse_pipe.geometry.box import Box, Zyx


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """`shape` cut into blocks of `block_shape`, both zyx and positive, in z-major order."""

    shape: Zyx
    block_shape: Zyx

    @property
    def counts(self) -> Zyx:
        """Blocks along z, y, x."""
        z, y, x = (-(-n // b) for n, b in zip(self.shape, self.block_shape, strict=True))
        return z, y, x

    @property
    def n_blocks(self) -> int:
        """All blocks."""
        z, y, x = self.counts
        return z * y * x

    def box(self, index: int) -> Box:
        """The box of block `index`, cut at the edge. Raises IndexError outside 0..n_blocks - 1."""
        if not 0 <= index < self.n_blocks:
            raise IndexError(f"block {index} of {self.n_blocks}")
        _, ny, nx = self.counts
        position = (index // (ny * nx), index // nx % ny, index % nx)
        start = _times(position, self.block_shape)
        return Box.of_shape(self.block_shape, start).intersect(Box.of_shape(self.shape))

    def index_of(self, voxel: Zyx) -> int:
        """The block that holds `voxel`."""
        z, y, x = (v // b for v, b in zip(voxel, self.block_shape, strict=True))
        return (z * self.counts[1] + y) * self.counts[2] + x

    def touching(self, box: Box) -> Iterator[int]:
        """Blocks that share a voxel with `box`, ascending. O(blocks returned)."""
        box = box.intersect(Box.of_shape(self.shape))
        if box.is_empty:
            return
        z, y, x = (
            range(a // b, -(-e // b)) for a, e, b in zip(box.start, box.stop, self.block_shape, strict=True)
        )
        for i in z:
            for j in y:
                for k in x:
                    yield (i * self.counts[1] + j) * self.counts[2] + k

    def is_aligned(self, box: Box) -> bool:
        """True when `box` is made of whole blocks of the grid."""
        return not box.is_empty and all(
            a % b == 0 and (e % b == 0 or e == n)
            for a, e, b, n in zip(box.start, box.stop, self.block_shape, self.shape, strict=True)
        )


def _times(a: Zyx, b: Zyx) -> Zyx:
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]
