"""Voxels of the next coarser level, from those of the one below.

    mean       em: grey levels; a tie is rounded to the even number, so that no level is brighter than another
    maximum    uncertainty: a doubtful voxel stays doubtful however far one zooms out
    mode       provenance, flags, labels: the most frequent number; of equals the smallest

A cell is 2 x 2 x 2 voxels of a lattice that begins at `start`; a cell at the edge has fewer. Voxels that do
not exist (`exists` is False: missing planes, shards outside the mask) take no part: they darken nothing.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.geometry.box import Zyx
from vemdiffuse_pipe.geometry.pyramid import FACTOR
from vemdiffuse_pipe.output.levels import Method

Flags = NDArray[np.bool_]
ORIGIN: Zyx = (0, 0, 0)


def coarser(
    voxels: NDArray[np.generic], method: Method, exists: Flags | None = None, start: Zyx = ORIGIN
) -> NDArray[np.generic]:
    """The cells of `voxels`, zyx, by `method`: the same dtype, `coarser_shape(voxels.shape, start)`.

    `exists`: of the shape of `voxels`; all where it is None. A cell of which no voxel exists is 0.
    `mean`: uint8 or uint16; `mode`: any whole number.
    """
    if method == "maximum":
        kept = voxels if exists is None else np.where(exists, voxels, voxels.dtype.type(0))
        return _folded(kept, np.maximum, start)
    if exists is None or exists.all():
        return _by_tensorstore(voxels, method, start)
    return _mean(voxels, exists, start) if method == "mean" else _mode(voxels, exists, start)


def coarser_existence(exists: Flags, start: Zyx = ORIGIN) -> Flags:
    """Cells of which at least one voxel exists."""
    return _folded(exists, np.logical_or, start).astype(np.bool_)


def _by_tensorstore(voxels: NDArray[np.generic], method: Method, start: Zyx) -> NDArray[np.generic]:
    import tensorstore as ts

    placed = ts.array(voxels)[ts.d[:].translate_to[start]]
    cells = ts.downsample(placed, [FACTOR] * 3, "mean" if method == "mean" else "mode")
    result: NDArray[np.generic] = np.asarray(cells.read().result())
    return result


def _mean(voxels: NDArray[np.generic], exists: Flags, start: Zyx) -> NDArray[np.generic]:
    """Sum over count, in whole numbers: halves to even, as tensorstore rounds."""
    kept = np.where(exists, voxels, voxels.dtype.type(0))
    total = _folded(kept.astype(np.uint32 if voxels.itemsize > 1 else np.uint16), np.add, start)
    count = np.maximum(_folded(exists.astype(total.dtype), np.add, start), 1)
    quotient, rest = np.divmod(total, count)
    rounds_up = (2 * rest > count) | ((2 * rest == count) & (quotient % 2 == 1))
    rounded: NDArray[np.generic] = (quotient + rounds_up).astype(voxels.dtype)
    return rounded


def _folded(voxels: NDArray[np.generic], operation: np.ufunc, start: Zyx) -> NDArray[np.generic]:
    """The cells' voxels, put together by `operation`, axis by axis: pairs, and at an edge a single one."""
    for axis, first in enumerate(start):
        voxels = np.moveaxis(_folded_axis(np.moveaxis(voxels, axis, 0), operation, first % FACTOR), 0, axis)
    return np.ascontiguousarray(voxels)


def _folded_axis(voxels: NDArray[np.generic], operation: np.ufunc, phase: int) -> NDArray[np.generic]:
    alone, paired = voxels[:phase], voxels[phase:]
    n_pairs = len(paired) // FACTOR
    pairs = operation(paired[0 : 2 * n_pairs : 2], paired[1 : 2 * n_pairs : 2])
    return np.concatenate([alone, pairs, paired[2 * n_pairs :]])


def _mode(voxels: NDArray[np.generic], exists: Flags, start: Zyx) -> NDArray[np.generic]:
    """The most frequent of at most eight: each is counted against the others."""
    padded, there = _whole_cells(voxels, exists, start)
    corners = list(product(range(FACTOR), repeat=3))
    views = [padded[k::2, j::2, i::2] for k, j, i in corners]
    masks = [there[k::2, j::2, i::2] for k, j, i in corners]
    best = np.zeros(views[0].shape, voxels.dtype)
    best_count = np.zeros(views[0].shape, np.uint8)
    for view, mask in zip(views, masks, strict=True):
        pairs = zip(views, masks, strict=True)
        count = sum(((other == view) & other_mask).astype(np.uint8) for other, other_mask in pairs) * mask
        wins = (count > best_count) | ((count == best_count) & mask & (view < best))
        best, best_count = np.where(wins, view, best), np.where(wins, count, best_count)
    return best


def _whole_cells(voxels: NDArray[np.generic], exists: Flags, start: Zyx) -> tuple[NDArray[np.generic], Flags]:
    """`voxels` on whole cells, and which of these exist."""
    before = [first % FACTOR for first in start]
    widths = [(b, (b + n) % FACTOR) for b, n in zip(before, voxels.shape, strict=True)]
    return np.pad(voxels, widths), np.pad(exists, widths)
