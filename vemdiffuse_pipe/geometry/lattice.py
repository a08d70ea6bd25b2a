r"""Where a plane is cut into what a network sees at once: tiles that are blended, or cores with a halo.

Both lattices belong to the volume and start at its corner. A voxel is always rendered in the same windows,
whatever the blocks are, so two blocks that touch a tile compute the same voxels.

TileLattice, for networks that are not exact under tiling:

                 stride          overlap
        |<------------------->|<------->|
        [========= tile 0 =============]                       weight of tile 0  ------\
                              [========= tile 1 ============]                            \ ... sum is 1
                                                              weight of tile 1  ______/------
All tiles have one size; the last may reach beyond the volume. The first and the last tile have no ramp at
the volume's edge.

CoreLattice, for networks that are exact beyond their context:

             core 0          core 1          core 2               each voxel belongs to one core
        |==============|==============|==============|
        [==============|-halo-]                                   window of core 0: cut at the volume
                [-halo-|==============|-halo-]                    window of core 1

A core's voxels are those of the whole plane at once: nothing is blended. Blocks that are made of whole cores
render every core once: ((core + 2 halo) / core)^2 pixels for one. With blocks and cores of 1024 px and a halo
of 96 px that is 1.41, where blended tiles of 384 px, which straddle the blocks, need 2.25. The core is a
constant of the run and does not follow the blocks: to cut a run otherwise must not change a voxel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.geometry.box import Box

Yx = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Tile:
    """One window of a lattice: its position `index` and its `start`, both (y, x)."""

    index: Yx
    start: Yx


class Lattice(Protocol):
    """Tiles over a plane: which of them a box touches, and what each of them contributes."""

    @property
    def shape(self) -> Yx:
        """Pixels of the plane."""
        ...

    @property
    def tile_px(self) -> Yx:
        """Pixels of the largest tile."""
        ...

    @property
    def n_tiles(self) -> int:
        """All tiles of a plane."""
        ...

    @property
    def is_blended(self) -> bool:
        """True where tiles share pixels, which are their weighted sum."""
        ...

    @property
    def identity(self) -> dict[str, int | list[int]]:
        """What of the lattice changes voxels, by name."""
        ...

    def span(self, axis: int, start: int, stop: int) -> range:
        """Positions along `axis` (0 is y) of the tiles that reach into [start, stop), inside the volume."""
        ...

    def touching(self, box: Box) -> Iterator[Tile]:
        """Tiles that contribute to the y and x of `box`, in yx order. O(tiles returned)."""
        ...

    def n_touching(self, box: Box) -> int:
        """How many tiles `touching` yields."""
        ...

    def n_rendered(self, axis: int, start: int, stop: int) -> int:
        """Pixels along `axis` of all tiles that contribute to [start, stop)."""
        ...

    def reach(self, box: Box) -> Box:
        """`box` widened to whole tiles, cut at the volume: what must be read to render it."""
        ...

    def window(self, tile: Tile) -> Box:
        """What the network sees of a plane, z from 0 to 1. It may reach beyond the volume at its end."""
        ...

    def kept(self, tile: Tile) -> Box:
        """The part of the window that the tile contributes to."""
        ...

    def weights(self, tile: Tile) -> NDArray[np.float32]:
        """Weights of a tile where tiles are blended: (y, x) of its window, float32; they sum to 1."""
        ...


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

    @property
    def is_blended(self) -> bool:
        """True where tiles share pixels."""
        return self.overlap_px > 0

    @property
    def identity(self) -> dict[str, int | list[int]]:
        """Tile and overlap; rendering of version 1."""
        return {"tile_px": list(self.tile_px), "overlap_px": self.overlap_px, "render_version": 1}

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

    def n_rendered(self, axis: int, start: int, stop: int) -> int:
        """Pixels along `axis` of whole tiles."""
        return len(self.span(axis, start, stop)) * self.tile_px[axis]

    def reach(self, box: Box) -> Box:
        """`box` widened to whole tiles, cut at the volume: what must be read to render it."""
        (y0, y1), (x0, x1) = (self._extent(axis, box.start[axis + 1], box.stop[axis + 1]) for axis in (0, 1))
        return Box((box.start[0], y0, x0), (box.stop[0], y1, x1))

    def _extent(self, axis: int, start: int, stop: int) -> tuple[int, int]:
        tiles = self.span(axis, start, stop)
        stride = self.stride_px[axis]
        return tiles[0] * stride, min(self.shape[axis], tiles[-1] * stride + self.tile_px[axis])

    def window(self, tile: Tile) -> Box:
        """The whole tile."""
        return Box.of_shape((1, *self.tile_px), (0, *tile.start))

    def kept(self, tile: Tile) -> Box:
        """The whole tile, by its weights."""
        return self.window(tile)

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


@dataclass(frozen=True, slots=True)
class CoreLattice:
    """Cores of `core_px` over a plane of `shape` (y, x), each seen with `halo_px` around it.

    Windows are cut at the volume and start and end on multiples of `multiple_px`.
    Raises PlanError unless core and halo are such multiples, and the core is not empty.
    """

    shape: Yx
    core_px: int
    halo_px: int
    multiple_px: int = 1

    def __post_init__(self) -> None:
        if self.core_px < 1 or self.core_px % self.multiple_px or self.halo_px % self.multiple_px:
            raise PlanError(
                f"core_px {self.core_px} with a halo of {self.halo_px} px; "
                f"multiples of {self.multiple_px} px are needed"
            )

    @property
    def counts(self) -> Yx:
        """Cores along y and x."""
        ny, nx = self.shape
        return max(1, -(-ny // self.core_px)), max(1, -(-nx // self.core_px))

    @property
    def n_tiles(self) -> int:
        """All cores of a plane."""
        return self.counts[0] * self.counts[1]

    @property
    def tile_px(self) -> Yx:
        """Pixels of the largest window: of one away from the volume's edges where there is one."""
        y, x = (
            max(self._length(axis, i) for i in ((n - 1) // 2, n // 2)) for axis, n in enumerate(self.counts)
        )
        return y, x

    @property
    def is_blended(self) -> bool:
        """Never: each voxel belongs to one core."""
        return False

    @property
    def identity(self) -> dict[str, int | list[int]]:
        """Core and halo; rendering of version 2."""
        return {"core_px": self.core_px, "halo_px": self.halo_px, "render_version": 2}

    def span(self, axis: int, start: int, stop: int) -> range:
        """Positions along `axis` (0 is y) of the cores that share a pixel with [start, stop)."""
        start, stop = max(0, start), min(stop, self.shape[axis])
        return range(start // self.core_px, -(-stop // self.core_px)) if start < stop else range(0)

    def touching(self, box: Box) -> Iterator[Tile]:
        """Tiles whose cores share a pixel with the y and x of `box`, in yx order. O(tiles returned)."""
        columns = self.span(1, box.start[2], box.stop[2])
        for i in self.span(0, box.start[1], box.stop[1]):
            for j in columns:
                yield Tile((i, j), (self._extent(0, i)[0], self._extent(1, j)[0]))

    def n_touching(self, box: Box) -> int:
        """How many tiles `touching` yields."""
        return len(self.span(0, box.start[1], box.stop[1])) * len(self.span(1, box.start[2], box.stop[2]))

    def n_rendered(self, axis: int, start: int, stop: int) -> int:
        """Pixels along `axis` of the windows of all cores that share a pixel with [start, stop)."""
        return sum(self._length(axis, i) for i in self.span(axis, start, stop))

    def reach(self, box: Box) -> Box:
        """`box` widened to the windows of its cores, cut at the volume: what must be read to render it."""
        (y0, y1), (x0, x1) = (self._reach(axis, box.start[axis + 1], box.stop[axis + 1]) for axis in (0, 1))
        return Box((box.start[0], y0, x0), (box.stop[0], y1, x1))

    def window(self, tile: Tile) -> Box:
        """The core with its halo, cut at the volume, whose size is rounded up to whole multiples."""
        (y, y_stop), (x, x_stop) = (self._extent(axis, tile.index[axis]) for axis in (0, 1))
        return Box((0, y, x), (1, y_stop, x_stop))

    def kept(self, tile: Tile) -> Box:
        """The core."""
        (i, j), core = tile.index, self.core_px
        return Box.of_shape((1, core, core), (0, i * core, j * core))

    def weights(self, tile: Tile) -> NDArray[np.float32]:
        """One inside the core, 0 outside."""
        window = self.window(tile)
        weights = np.zeros(window.shape[1:], np.float32)
        weights[self.kept(tile).intersect(window).relative_to(window.start).slices[1:]] = 1
        return weights

    def _extent(self, axis: int, position: int) -> tuple[int, int]:
        end = -(-self.shape[axis] // self.multiple_px) * self.multiple_px
        start = position * self.core_px
        return max(0, start - self.halo_px), min(end, start + self.core_px + self.halo_px)

    def _length(self, axis: int, position: int) -> int:
        start, stop = self._extent(axis, position)
        return stop - start

    def _reach(self, axis: int, start: int, stop: int) -> tuple[int, int]:
        cores = self.span(axis, start, stop)
        return self._extent(axis, cores[0])[0], min(self.shape[axis], self._extent(axis, cores[-1])[1])
