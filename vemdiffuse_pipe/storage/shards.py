"""Sharded precomputed volumes, one shard a write: built whole in memory, then put as one object.

tensorstore (0.1.86) leaves a shard of zeros out and reads an absent one as zeros; here a shard that was
written is there, whatever it holds, and a chunk that is not there is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import MissingDataError
from vemdiffuse_pipe.geometry import morton
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.storage import faults, objects, stores
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.encodings import Encode, encoder
from vemdiffuse_pipe.storage.images import chunk_counts, sharding
from vemdiffuse_pipe.storage.levels import Reader

if TYPE_CHECKING:
    import tensorstore

RAW = encoder("raw", "uint8")


class ShardWriter:
    """Writes whole shards of the scale whose chunks are in the folder `address`."""

    def __init__(
        self,
        address: Address,
        shape: Zyx,
        chunk_shape: Zyx,
        shard_shape: Zyx,
        encode: Encode = RAW,
    ) -> None:
        self._address = address
        self._encode = encode
        self._chunks = BlockGrid(shape, chunk_shape)
        self._shards = BlockGrid(shape, shard_shape)
        self._sharding = sharding(shape, chunk_shape, shard_shape)

    def write(self, box: Box, voxels: NDArray[np.generic]) -> None:
        """Write the shards that make up `box`; `voxels` are of its shape."""
        for shard in self._shards.touching(box):
            shard_box = self._shards.box(shard)
            code, content = self._shard(shard_box, voxels[shard_box.relative_to(box.start).slices])
            objects.write_bytes_atomically(self._address / self._name(code), content)

    def _shard(self, shard_box: Box, voxels: NDArray[np.generic]) -> tuple[int, bytes]:
        from cloudvolume.datasource.precomputed.sharding import ShardingSpecification

        specification = ShardingSpecification.from_dict(self._sharding)
        encoded: dict[int, bytes] = {}
        for chunk, chunk_box in _chunks_of(self._chunks, shard_box):
            part = voxels[chunk_box.relative_to(shard_box.start).slices]
            encoded[morton.code_of(chunk, self._chunks.counts)] = self._encode(part)
        content: bytes = specification.synthesize_shard(encoded)
        return min(encoded) >> int(str(self._sharding["preshift_bits"])), content

    def _name(self, shard_code: int) -> str:
        digits = -(-int(str(self._sharding["shard_bits"])) // 4)
        return f"{shard_code:0{max(1, digits)}x}.shard"


class StrictShards:
    """A reader of a sharded scale that takes no absent chunk for a black one.

    Only a chunk that reads as zeros is looked up in its shard's index.
    """

    def __init__(self, reader: Reader, chunks: tensorstore.KvStore, shard_shape: Zyx, what: str) -> None:
        self._reader = reader
        self._stored = chunks
        self._what = what
        self._grid = BlockGrid(reader.shape, reader.chunk_shape)
        self.shape, self.dtype = reader.shape, reader.dtype
        self.chunk_shape, self.shard_shape = reader.chunk_shape, shard_shape
        self.fill_value, self.codec, self.read_by = reader.fill_value, reader.codec, reader.read_by

    def read(self, box: Box) -> NDArray[np.generic]:
        """The voxels of `box`, zyx. Raises MissingDataError where a chunk is not in its shard."""
        voxels = self._reader.read(box)
        for chunk, chunk_box in _chunks_of(self._grid, box):
            part = chunk_box.intersect(box)
            if not voxels[part.relative_to(box.start).slices].any() and not self._is_stored(chunk):
                raise MissingDataError(f"{box} of {self._what} cannot be read: chunk {chunk_box} is missing")
        return voxels

    def _is_stored(self, chunk: Zyx) -> bool:
        key = morton.code_of(chunk, self._grid.counts).to_bytes(8, "big")
        with faults.reading(f"chunk {chunk} of {self._what}"):
            return bool(self._stored.read(key).result().state != "missing")


def strict(reader: Reader, folder: Address, specification: Mapping[str, object], what: str) -> Reader:
    """`reader` of the sharded scale in `folder`, made strict. Raises SourceError or TransientError."""
    import tensorstore as ts

    base = stores.kvstore_of(folder)
    spec = {"driver": "neuroglancer_uint64_sharded", "base": base, "metadata": specification}
    with faults.opening(what):
        chunks = ts.KvStore.open(spec, context=ts.Context(stores.retries_context())).result()
    bits = sum(int(str(specification.get(key))) for key in ("preshift_bits", "minishard_bits"))
    extent = morton.covered(chunk_counts(reader.shape, reader.chunk_shape), bits)
    z, y, x = (n * c for n, c in zip(extent, reader.chunk_shape, strict=True))
    return StrictShards(reader, chunks, (z, y, x), what)


def _chunks_of(grid: BlockGrid, box: Box) -> Iterator[tuple[Zyx, Box]]:
    """(position in the grid, box) of each chunk that touches `box`."""
    for index in grid.touching(box):
        chunk_box = grid.box(index)
        z, y, x = (s // c for s, c in zip(chunk_box.start, grid.block_shape, strict=True))
        yield (z, y, x), chunk_box
