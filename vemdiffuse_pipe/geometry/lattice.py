r"""The one global lattice of tiles, and the ramps that blend them.

                 stride          overlap
        |<------------------->|<------->|
        [========= tile 0 =============]                       weight of tile 0  ------\
                              [========= tile 1 ============]                            \ ... sum is 1
                                                              weight of tile 1  ______/------
The lattice belongs to the volume and starts at its corner; a block renders every tile that it touches,
so two blocks that share a tile compute the same voxels. All tiles have one size; the last may reach
beyond the volume. The first and the last tile have no ramp at the volume's edge.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.geometry.box import Box

Yx = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Tile:
    """One window of the lattice: its position `index` and its `start`, both (y, x)."""

    index: Yx
    start: Yx


@dataclass(frozen=True, slots=True)
class TileLattice:
    """Tiles of `tile_px` (y, x) over a plane of `shape`, sharing `overlap_px` with their neighbours.

    Raises PlanError unless 0 <= overlap <= tile / 2, so that at most two tiles meet along an axis.
    """

    shape: Yx
    tile_px: Yx
    overlap_px: int

    def __post_init__(self) -> None:
        if not 0 <= 2 * self.overlap_px <= min(self.tile_px):
            raise PlanError(f"overlap {self.overlap_px} px; 0 to half of the tile {self.tile_px} is needed")

    @property
    def stride_px(self) -> Yx:
        """Distance between neighbouring tiles."""
        return self.tile_px[0] - self.overlap_px, self.tile_px[1] - self.overlap_px

    @property
    def counts(self) -> Yx:
        """Tiles along y and x."""
        y, x = (
            max(1, -(-(n - self.overlap_px) // s)) for n, s in zip(self.shape, self.stride_px, strict=True)
        )
        return y, x

    @property
    def n_tiles(self) -> int:
        """All tiles of a plane."""
        return self.counts[0] * self.counts[1]

    def span(self, axis: int, start: int, stop: int) -> range:
        """Positions along `axis` (0 is y) of the tiles that reach into [start, stop), inside the volume."""
        start, stop = max(0, start), min(stop, self.shape[axis])
        if start >= stop:
            return range(0)
        stride, n = self.stride_px[axis], self.counts[axis]
        first = max(0, (start - self.tile_px[axis]) // stride + 1)
        return range(first, min(n, (stop - 1) // stride + 1))

    def touching(self, box: Box) -> Iterator[Tile]:
        """Tiles that share a pixel with the y and x of `box`, in yx order. O(tiles returned)."""
        columns = self.span(1, box.start[2], box.stop[2])
        for i in self.span(0, box.start[1], box.stop[1]):
            for j in columns:
                yield Tile((i, j), (i * self.stride_px[0], j * self.stride_px[1]))

    def n_touching(self, box: Box) -> int:
        """How many tiles `touching` yields."""
        return len(self.span(0, box.start[1], box.stop[1])) * len(self.span(1, box.start[2], box.stop[2]))

    def reach(self, box: Box) -> Box:
        """`box` widened to whole tiles, cut at the volume: what must be read to render it."""
        (y0, y1), (x0, x1) = (self._extent(axis, box.start[axis + 1], box.stop[axis + 1]) for axis in (0, 1))
        return Box((box.start[0], y0, x0), (box.stop[0], y1, x1))

    def _extent(self, axis: int, start: int, stop: int) -> tuple[int, int]:
        tiles = self.span(axis, start, stop)
        stride = self.stride_px[axis]
        return tiles[0] * stride, min(self.shape[axis], tiles[-1] * stride + self.tile_px[axis])

    def ramp(self, axis: int, position: int) -> NDArray[np.float32]:
        """Weights of the tile at `position` along `axis`: (tile,) float32; over all tiles they sum to 1."""
        weights = np.ones(self.tile_px[axis], dtype=np.float32)
        rise = (np.arange(self.overlap_px, dtype=np.float32) + 0.5) / np.float32(max(1, self.overlap_px))
        if position > 0:
            weights[: self.overlap_px] = rise
        if position < self.counts[axis] - 1:
            weights[self.tile_px[axis] - self.overlap_px :] = 1 - rise
        return weights

    def weights(self, tile: Tile) -> NDArray[np.float32]:
        """Weights of `tile`: (y, x) float32, the product of its two ramps."""
        return self.ramp(0, tile.index[0])[:, None] * self.ramp(1, tile.index[1])[None, :]
