"""Axis-aligned boxes of voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Zyx = tuple[int, int, int]


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """Half-open box of voxels, zyx: `start` inside, `stop` outside. May be empty."""

    start: Zyx
    stop: Zyx

    @classmethod
    def between(cls, corners: Sequence[int]) -> Box:
        """The box from six numbers: the first voxel, and the one after the last."""
        z, y, x, z_stop, y_stop, x_stop = corners
        return cls((z, y, x), (z_stop, y_stop, x_stop))

    @classmethod
    def of_shape(cls, shape: Zyx, start: Zyx = (0, 0, 0)) -> Box:
        """The box of `shape` from `start` on."""
        return cls(start, _add(start, shape))

    @property
    def shape(self) -> Zyx:
        """Voxels along z, y, x; never negative."""
        z, y, x = (max(0, b - a) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    @property
    def n_voxels(self) -> int:
        """Voxels in the box."""
        z, y, x = self.shape
        return z * y * x

    @property
    def is_empty(self) -> bool:
        """True when the box holds no voxel."""
        return self.n_voxels == 0

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Index of an array whose first voxel is the frame's origin."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def intersect(self, other: Box) -> Box:
        """What both boxes hold; empty (of some position) when they do not touch."""
        start = _larger(self.start, other.start)
        return Box(start, _larger(start, _smaller(self.stop, other.stop)))

    def contains(self, other: Box) -> bool:
        """True when every voxel of `other` is in this box."""
        return other.is_empty or self.intersect(other) == other

    def whole(self, chunk_shape: Zyx) -> Box:
        """The smallest box of whole chunks that holds it, on a grid of chunks from the origin."""
        z, y, x = (a // chunk * chunk for a, chunk in zip(self.start, chunk_shape, strict=True))
        z_stop, y_stop, x_stop = (
            -(-b // chunk) * chunk for b, chunk in zip(self.stop, chunk_shape, strict=True)
        )
        return Box((z, y, x), (z_stop, y_stop, x_stop))

    def shift(self, by: Zyx) -> Box:
        """The same box, moved."""
        return Box(_add(self.start, by), _add(self.stop, by))

    def relative_to(self, origin: Zyx) -> Box:
        """The same box in a frame whose first voxel is `origin`."""
        return self.shift((-origin[0], -origin[1], -origin[2]))

    def __str__(self) -> str:
        spans = (f"{a}:{b}" for a, b in zip(self.start, self.stop, strict=True))
        return f"[{', '.join(spans)}]"


def _add(a: Zyx, b: Zyx) -> Zyx:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def _larger(a: Zyx, b: Zyx) -> Zyx:
    return max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2])


def _smaller(a: Zyx, b: Zyx) -> Zyx:
    return min(a[0], b[0]), min(a[1], b[1]), min(a[2], b[2])
