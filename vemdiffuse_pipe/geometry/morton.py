"""Compressed Morton codes: the order in which sharded precomputed volumes number their chunks.

The bits of a chunk's x, y and z are interleaved, x lowest; an axis that has no more chunks gives no more
bits. So the chunks that share all but their lowest bits form a box, and a shard can be written as a whole.

    8 x 2 chunks (x, y)      0  1  4  5 | 8  9 12 13        the 3 lowest bits cover 4 x 2 chunks
                             2  3  6  7 |10 11 14 15

(Neuroglancer, "Sharded format", section on compressed Morton codes.)
"""

from __future__ import annotations

from collections.abc import Iterator

from vemdiffuse_pipe.geometry.box import Zyx


def code_of(chunk: Zyx, counts: Zyx) -> int:
    """The code of the chunk at (z, y, x) in a grid of `counts` chunks."""
    code = 0
    for position, (axis, bit) in enumerate(_bits(counts)):
        code |= (chunk[axis] >> bit & 1) << position
    return code


def n_bits(counts: Zyx) -> int:
    """Bits of the largest code."""
    return sum(1 for _ in _bits(counts))


def covered(counts: Zyx, bits: int) -> Zyx:
    """Chunks along z, y and x that differ in the lowest `bits` of their codes only."""
    extent = [1, 1, 1]
    for _, (axis, _) in zip(range(bits), _bits(counts), strict=False):
        extent[axis] *= 2
    z, y, x = extent
    return z, y, x


def _bits(counts: Zyx) -> Iterator[tuple[int, int]]:
    """(axis, bit of its position), from the lowest bit of the code up."""
    for bit in range(max(n - 1 for n in counts).bit_length()):
        for axis in (2, 1, 0):
            if counts[axis] - 1 >> bit:
                yield axis, bit
