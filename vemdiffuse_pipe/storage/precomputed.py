"""Neuroglancer precomputed volumes. Sizes are nm, x y z; the corner of voxel 0 is voxel_offset * resolution.

tensorstore reads them, except where it does not know the encoding, or where a local copy has compressed files
with names like `0-64_0-64_0-64.gz`, which it does not see: there chunks are decoded one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.storage import metadata, objects, shards, stores
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.chunk_objects import COMPRESSED_NAMES, ChunkObjects
from vemdiffuse_pipe.storage.chunked import ChunkedReader, open_for_reading
from vemdiffuse_pipe.storage.levels import Level, Reader, Volume, zyx_of

if TYPE_CHECKING:
    import tensorstore

ENCODINGS = ("raw", "jpeg", "png", "compresso", "compressed_segmentation")
_DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32")
_NAMES_LOOKED_AT = 100_000


def find(address: Address) -> Volume | None:
    """The volume at `address`; None where there is no `info`. Raises SourceError."""
    info = metadata.read_document(address / "info")
    if info is None:
        return None
    where = str(address / "info")
    scales = metadata.items(info.get("scales"), f"{where}: scales")
    dtype = metadata.text(info.get("data_type"), f"{where}: data_type")
    if dtype not in _DTYPES:
        raise SourceError(f"{where}: data_type is {dtype!r:.40}; {metadata.listed(_DTYPES)} are known")
    (n_channels,) = metadata.shape([info.get("num_channels", 1)], f"{where}: num_channels")
    levels = [_level(address, i, metadata.mapping(s, where), dtype, n_channels) for i, s in enumerate(scales)]
    return Volume(str(address), "precomputed", levels)


def find_levels(address: Address) -> Sequence[Level]:
    """The levels of the volume at `address`. Raises SourceError where there is none."""
    if (volume := find(address)) is None:
        raise SourceError(f"{address} holds no precomputed volume: info is not there")
    return volume.levels


@dataclass(frozen=True, slots=True)
class PrecomputedScale:
    """The scale that is number `index` in the `info` at `address`, and its `chunks`."""

    address: Address
    index: int
    chunks: ChunkObjects
    n_channels: int

    def open(self, cache_bytes: int = 0, channel: int | None = None) -> Reader:
        """The scale, zyx. Raises SourceError or TransientError."""
        what, sharding = str(self.chunks.folder), self.chunks.sharding
        if self.chunks.encoding == "compresso" or self._has_compressed_names():
            return ChunkedReader(self._by_chunk(cache_bytes), "xyzc", what, channel, self.chunks.encoding)
        spec = {
            "driver": "neuroglancer_precomputed",
            "kvstore": stores.kvstore_of(self.address),
            "scale_index": self.index,
        }
        reader = ChunkedReader(open_for_reading(spec, what, cache_bytes), "xyzc", what, channel)
        return reader if sharding is None else shards.strict(reader, self.chunks.folder, sharding, what)

    def _by_chunk(self, cache_bytes: int) -> tensorstore.TensorStore:
        if self.n_channels > 1:
            raise SourceError(
                f"{self.chunks.folder} has {self.n_channels} channels, and chunks that are decoded singly "
                f"({self.chunks.encoding}): these are read with one channel"
            )
        return self.chunks.open(cache_bytes)

    def _has_compressed_names(self) -> bool:
        """True for a local copy whose chunks tensorstore would not see."""
        folder = self.chunks.folder
        if not folder.is_local or self.chunks.sharding is not None:
            return False
        names = islice(objects.list_names(folder), _NAMES_LOOKED_AT)
        return any(name.endswith(COMPRESSED_NAMES) for name in names)


def _level(address: Address, index: int, scale: dict[str, object], dtype: str, n_channels: int) -> Level:
    where = f"{address / 'info'}: scales[{index}]"
    key = metadata.inner_path(scale.get("key"), f"{where}.key")
    encoding = metadata.text(scale.get("encoding"), f"{where}.encoding")
    if encoding not in ENCODINGS:
        raise SourceError(f"{where}.encoding: found {encoding!r:.40}; {metadata.listed(ENCODINGS)} are read")
    size = metadata.shape(scale.get("size"), f"{where}.size", 3)
    chunk_sizes = metadata.items(scale.get("chunk_sizes"), f"{where}.chunk_sizes")
    chunk, *_ = (metadata.chunk_shape(c, f"{where}.chunk_sizes", 3) for c in chunk_sizes)
    resolution = metadata.sizes(scale.get("resolution"), f"{where}.resolution", 3)
    offset = metadata.integers(scale.get("voxel_offset", [0, 0, 0]), f"{where}.voxel_offset", 3)
    corner = [s * o for s, o in zip(resolution, offset, strict=True)]
    sharding = scale.get("sharding")
    known = None if sharding is None else metadata.mapping(sharding, f"{where}.sharding")
    chunks = ChunkObjects(address / key, encoding, dtype, size, chunk, offset, known)
    array = PrecomputedScale(address, index, chunks, n_channels)
    return Level(key, array, zyx_of(resolution[::-1]), zyx_of(corner[::-1]), is_in_nm=True)
