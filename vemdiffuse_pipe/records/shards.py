"""Which shards are done, and what blocks still lack: bits and arithmetic, no list of blocks.

shards 4 x 6, blocks of 2 x 3 shards            # done    . missing

    # # # | . . .          block 0: complete, it is not work
    # # # | . . .          block 1: all of it is missing: one piece of work
    ------+------          block 2: one shard is missing (the block shape was changed): that box
    # # # | # # #          block 3: two runs of shards along x are missing: two boxes
    # . # | . . #
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import OutputError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.records.parts import EVERYTHING, Share

Flags = NDArray[np.bool_]
Counts = NDArray[np.int64]


class ShardSet:
    """A set of shards of a grid: one bit each."""

    def __init__(self, grid: BlockGrid) -> None:
        self.grid = grid
        self._n_shards = grid.n_blocks
        self._bits = bytearray(-(-self._n_shards // 8))

    def add(self, shard: int) -> None:
        """Put a linear index into the set. Raises OutputError where the grid has no such shard."""
        if not 0 <= shard < self._n_shards:
            raise OutputError(f"a receipt names shard {shard}; the output has {self._n_shards}")
        self._bits[shard >> 3] |= 1 << (shard & 7)

    def add_layer(self, layer: int, flags: Flags) -> None:
        """Put the flagged shards of a layer along z, (y, x), into the set."""
        _, ny, nx = self.grid.counts
        shards = layer * ny * nx + np.flatnonzero(flags)
        np.bitwise_or.at(
            np.frombuffer(self._bits, np.uint8), shards >> 3, (1 << (shards & 7)).astype(np.uint8)
        )

    @property
    def bits(self) -> bytes:
        """One bit a shard, ascending, the lowest first; the last byte is filled up with 0."""
        return bytes(self._bits)

    @classmethod
    def of_bits(cls, grid: BlockGrid, bits: bytes) -> ShardSet:
        """The set that had these `bits`. Raises OutputError where they are not those of such a grid."""
        of_grid = cls(grid)
        if len(bits) != len(of_grid._bits) or int.from_bytes(bits[-1:], "little") >> (
            (grid.n_blocks - 1) % 8 + 1
        ):
            raise OutputError(
                f"a list of shards has {8 * len(bits)} bits; the output has {grid.n_blocks} shards"
            )
        of_grid._bits[:] = bits
        return of_grid

    def __contains__(self, shard: int) -> bool:
        return bool(self._bits[shard >> 3] >> (shard & 7) & 1)

    def __len__(self) -> int:
        return int.from_bytes(self._bits, "little").bit_count()

    def __or__(self, other: ShardSet) -> ShardSet:
        union = ShardSet(self.grid)
        ours, theirs = (np.frombuffer(s._bits, np.uint8) for s in (self, other))
        union._bits = bytearray((ours | theirs).tobytes())
        return union

    def __invert__(self) -> ShardSet:
        n_bits = self._n_shards % 8 or 8
        bits = ~np.frombuffer(self._bits, np.uint8)
        bits[-1] &= (1 << n_bits) - 1
        return ShardSet.of_bits(self.grid, bits.tobytes())

    def layers(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Which shards of layers [start, stop) along z are in the set: (z, y, x), a copy."""
        _, ny, nx = self.grid.counts
        first, last = start * ny * nx, stop * ny * nx
        bits = np.frombuffer(self._bits, np.uint8)[first >> 3 : -(-last // 8)]
        flags = np.unpackbits(bits, bitorder="little")[first & 7 :][: last - first]
        return flags.view(np.bool_).reshape(stop - start, ny, nx)

    def rows(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Which shards of rows [start, stop) along y are in the set: (z, y, x), a copy."""
        nz, ny, nx = self.grid.counts
        bits = np.frombuffer(self._bits, np.uint8)
        flags = np.empty((nz, (stop - start) * nx), np.uint8)
        for z in range(nz):
            first, last = (z * ny + start) * nx, (z * ny + stop) * nx
            part = np.unpackbits(bits[first >> 3 : -(-last // 8)], bitorder="little")
            flags[z] = part[first & 7 :][: last - first]
        return flags.view(np.bool_).reshape(nz, stop - start, nx)

    def member(self, position: int) -> int:
        """The shard at `position` among those in the set, ascending."""
        nz, ny, nx = self.grid.counts
        for layer in range(nz):
            members = np.flatnonzero(self.layers(layer, layer + 1))
            if position < members.size:
                return layer * ny * nx + int(members[position])
            position -= members.size
        raise IndexError("the set has fewer shards")

    def n_voxels(self) -> int:
        """Voxels of all shards in the set, those at the edge cut."""
        nz, *_ = self.grid.counts
        z, y, x = (
            np.minimum(n - np.arange(0, n, s), s)
            for n, s in zip(self.grid.shape, self.grid.block_shape, strict=True)
        )
        return sum(int(z[i]) * int(y @ (self.layers(i, i + 1)[0] @ x)) for i in range(nz))


@dataclass(frozen=True, slots=True)
class Work:
    """Something that a block lacks: a box of whole shards, all of the block where nothing of it is done."""

    block_index: int
    output_box: Box


def missing_work(
    blocks: BlockGrid,
    done: ShardSet,
    *,
    columns: bool = False,
    share: Share = EVERYTHING,
    backwards: bool = False,
) -> Iterator[Work]:
    """What every block of `share` lacks, nothing for complete blocks: ascending, or by columns, z fastest.

    `backwards`: from the last to the first. The order changes no voxel. Memory: one layer of blocks, or one
    row of columns.
    """
    order = (1, 2, 0) if columns else (0, 1, 2)
    for first, n_missing, n_shards in _counted(blocks, done, columns, share, backwards):
        places = np.argwhere(n_missing.transpose(order))
        for place in places[::-1] if backwards else places:
            position = tuple(int(place[order.index(axis)]) for axis in range(3))
            z, y, x = (a + b for a, b in zip(first, position, strict=True))
            index = (z * blocks.counts[1] + y) * blocks.counts[2] + x
            whole = n_missing[position] == n_shards[position]
            boxes = [blocks.box(index)] if whole else list(_missing_boxes(blocks.box(index), done))
            yield from (Work(index, box) for box in (boxes[::-1] if backwards else boxes))


def count_missing(
    blocks: BlockGrid, done: ShardSet, *, columns: bool = False, share: Share = EVERYTHING
) -> int:
    """How many blocks of `share` lack at least one shard."""
    counted = _counted(blocks, done, columns, share, backwards=False)
    return sum(int(np.count_nonzero(n_missing)) for _, n_missing, _ in counted)


def missing_by_layer(blocks: BlockGrid, done: ShardSet) -> Iterator[Flags]:
    """For each layer of blocks along z, which of them lack a shard: (y, x). Memory: one layer."""
    for _, missing in _layers(blocks, done, backwards=False):
        yield _per_block(missing, blocks, done.grid)[0] > 0


def _counted(
    blocks: BlockGrid, done: ShardSet, columns: bool, share: Share, backwards: bool
) -> Iterator[tuple[Zyx, Counts, Counts]]:
    """For each layer or row of blocks: its first block, and for each of its blocks how many shards are
    missing, 0 outside of `share`, and how many there are, both (z, y, x).
    """
    for first, missing in (_rows if columns else _layers)(blocks, done, backwards):
        n_missing = _per_block(missing, blocks, done.grid)
        chosen = share.of_blocks(blocks.counts, first, n_missing.shape, columns=columns)
        yield first, n_missing * chosen, _per_block(np.ones_like(missing), blocks, done.grid)


def _layers(blocks: BlockGrid, done: ShardSet, backwards: bool) -> Iterator[tuple[Zyx, Flags]]:
    """For each layer of blocks along z: its first block, and its shards that are not done, (z, y, x)."""
    depth, n = -(-blocks.block_shape[0] // done.grid.block_shape[0]), done.grid.counts[0]
    for start in _in_turn(range(0, n, depth), backwards):
        yield (start // depth, 0, 0), ~done.layers(start, min(n, start + depth))


def _rows(blocks: BlockGrid, done: ShardSet, backwards: bool) -> Iterator[tuple[Zyx, Flags]]:
    """The same for each row of blocks along y."""
    width, n = -(-blocks.block_shape[1] // done.grid.block_shape[1]), done.grid.counts[1]
    for start in _in_turn(range(0, n, width), backwards):
        yield (0, start // width, 0), ~done.rows(start, min(n, start + width))


def _in_turn(starts: range, backwards: bool) -> range:
    return starts[::-1] if backwards else starts


def _per_block(flags: Flags, blocks: BlockGrid, shards: BlockGrid) -> Counts:
    """How many of the shards (z, y, x) of whole blocks are flagged, for each block: (z, y, x)."""
    counts = flags.astype(np.int64)
    for axis, (block, shard) in enumerate(zip(blocks.block_shape, shards.block_shape, strict=True)):
        starts = np.arange(0, flags.shape[axis], -(-block // shard))
        counts = np.add.reduceat(counts, starts, axis=axis)
    return counts


def _missing_boxes(block: Box, done: ShardSet) -> Iterator[Box]:
    """The missing shards of a block, neighbours along x joined."""
    run: Box | None = None
    for shard in done.grid.touching(block):
        if shard in done:
            continue
        box = done.grid.box(shard)
        if run is not None and (run.start[:2], run.stop) == (box.start[:2], (*box.stop[:2], box.start[2])):
            run = Box(run.start, box.stop)
            continue
        if run is not None:
            yield run
        run = box
    if run is not None:
        yield run
