"""Which voxels of a level exist: those that a mask leaves out, and planes that are missing, do not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.pyramid import FACTOR
from vemdiffuse_pipe.records.shards import ShardSet

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Existence:
    """Of the voxels of an output, seen at any level of an image of it, or of a part of it."""

    planes: Flags
    """(planes of the output,): False for a plane that is missing."""
    outside: ShardSet
    """Shards of the output that its mask leaves out."""
    offset: Zyx = (0, 0, 0)
    """Voxel of the output that is voxel 0 of the image's level 0."""
    start: Zyx = (0, 0, 0)
    """Voxel of the lattice of coarse voxels that is voxel 0 of the image's level 0."""

    @property
    def is_complete(self) -> bool:
        """True where every voxel exists."""
        return not len(self.outside) and bool(self.planes.all())

    def of(self, level: int, box: Box) -> Flags:
        """For each voxel of `box` of `level`, whether any voxel of level 0 that it covers exists."""
        spans = [self._spans(level, axis, box.start[axis], box.stop[axis]) for axis in range(3)]
        exists = np.zeros(box.shape, np.bool_)
        covered = Box(_corner(spans, 0, 0), _corner(spans, -1, 1))
        for shard in self.outside.grid.touching(covered):
            if shard not in self.outside:
                part = self.outside.grid.box(shard)
                exists[_touching(spans, part)] = True
        has_plane = np.array([self.planes[a:b].any() for a, b in spans[0]], np.bool_)
        return exists & has_plane[:, None, None]

    def _spans(self, level: int, axis: int, first: int, stop: int) -> NDArray[np.int64]:
        """[first, stop) along `axis` of the output for each voxel of the level, cut at the output: (n, 2)."""
        factor, start, offset = FACTOR**level, self.start[axis], self.offset[axis]
        edges = (np.arange(first, stop + 1) + (start >> level)) * factor - start + offset
        edges = edges.clip(offset, self.outside.grid.shape[axis])
        return np.stack([edges[:-1], edges[1:]], axis=1)


def _corner(spans: list[NDArray[np.int64]], position: int, side: int) -> Zyx:
    z, y, x = (int(span[position, side]) for span in spans)
    return z, y, x


def _touching(spans: list[NDArray[np.int64]], part: Box) -> tuple[slice, slice, slice]:
    """The voxels of the level that share a voxel of level 0 with `part`."""
    z, y, x = (
        slice(int((span[:, 1] <= first).sum()), int((span[:, 0] < stop).sum()))
        for span, first, stop in zip(spans, part.start, part.stop, strict=True)
    )
    return z, y, x
