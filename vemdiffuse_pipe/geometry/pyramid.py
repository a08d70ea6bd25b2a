"""Coarser levels of a frame: each voxel of level l covers 2^l x 2^l x 2^l voxels of level 0.

    level 0   |0|1|2|3|4|         5 voxels of 10 nm, corner at 0
    level 1   | 0 | 1 | 2 |       3 voxels of 20 nm, corner at 0; the last one covers one voxel
    level 2   |   0   |   1   |   2 voxels of 40 nm

The corner of every level is that of level 0, so a level's first centre, which OME-Zarr calls its translation,
is corner + scale / 2. Where voxels are counted from another origin (`start`), the lattice of that origin is
kept: the first voxel of a level may then cover fewer.
"""

from __future__ import annotations

from math import ceil

from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Frame

FACTOR = 2
MAX_LEVELS = 32


def coarser_shape(shape: Zyx, start: Zyx = (0, 0, 0)) -> Zyx:
    """Voxels, zyx, of the next level of a volume that begins at voxel `start` of its lattice."""
    z, y, x = (ceil((a + n) / FACTOR) - a // FACTOR for a, n in zip(start, shape, strict=True))
    return z, y, x


def level_start(start: Zyx, level: int) -> Zyx:
    """The voxel of `level`, counted from the origin of the lattice, that holds voxel `start` of level 0."""
    z, y, x = (a >> level for a in start)
    return z, y, x


def level_frame(frame: Frame, level: int, start: Zyx = (0, 0, 0)) -> Frame:
    """The frame of `level`; level 0 is `frame` itself, whose voxel 0 is voxel `start` of the lattice.

    The corner stays, or moves down to that of the first voxel of the level, where `start` lies within it.
    """
    shape = frame.shape
    for below in range(level):
        shape = coarser_shape(shape, level_start(start, below))
    factor = FACTOR**level
    dz, dy, dx = frame.voxel_size_nm
    z, y, x = (
        corner - size * (first % factor)
        for corner, size, first in zip(frame.corner_nm, frame.voxel_size_nm, start, strict=True)
    )
    return Frame(shape, (dz * factor, dy * factor, dx * factor), (z, y, x))


def n_levels_until_small(shape: Zyx, chunk_shape: Zyx) -> int:
    """Levels, level 0 included, until a whole section fits one chunk along y and x."""
    n_levels = 1
    while any(n > c for n, c in zip(shape[1:], chunk_shape[1:], strict=True)) and n_levels < MAX_LEVELS:
        shape = coarser_shape(shape)
        n_levels += 1
    return n_levels


def finer_box(box: Box, finer_shape: Zyx, finer_start: Zyx = (0, 0, 0)) -> Box:
    """The voxels of the level below that those of `box` cover, cut at the edge of the volume.

    `finer_start`: the first voxel of the level below, counted from the origin of the lattice.
    """
    first = [a - a % FACTOR for a in finer_start]
    z, y, x = (a * FACTOR + b - c for a, b, c in zip(box.start, first, finer_start, strict=True))
    dz, dy, dx = (n * FACTOR for n in box.shape)
    return Box((z, y, x), (z + dz, y + dy, x + dx)).intersect(Box.of_shape(finer_shape))
