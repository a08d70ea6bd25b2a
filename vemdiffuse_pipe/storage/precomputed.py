"""Neuroglancer precomputed volumes. Sizes are nm, x y z; the corner of voxel 0 is voxel_offset * resolution.

tensorstore reads them, except where it does not know the encoding, or where a local copy has compressed files
with names like `0-64_0-64_0-64.gz`, which it does not see: there chunks are decoded one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import AbsentLevelError, CorruptDataError, MissingDataError, SourceError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.storage import codecs, metadata, objects, shards, stores
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.chunk_objects import COMPRESSED_NAMES, ChunkObjects
from vemdiffuse_pipe.storage.chunked import ChunkedReader, DecodedHere, open_for_reading
from vemdiffuse_pipe.storage.levels import Level, Reader, Volume, zyx_of
from vemdiffuse_pipe.storage.other_reader import OtherReader

if TYPE_CHECKING:
    import tensorstore

ENCODINGS = ("raw", "jpeg", "png", "compresso", "compressed_segmentation")
_DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32")
_NAMES_LOOKED_AT = 100_000
_CHUNKS_LOOKED_AT = 64
_BLOCK_SIZE = "compressed_segmentation_block_size"


def find(address: Address) -> Volume | None:
    """The volume at `address`; None where there is no `info`. Raises SourceError."""
    info = metadata.read_document(address / "info") or metadata.read_document(address / "info.gz")
    if info is None:
        return None
    where = str(address / "info")
    scales = metadata.items(info.get("scales"), f"{where}: scales")
    dtype = metadata.text(info.get("data_type"), f"{where}: data_type")
    if dtype not in _DTYPES:
        raise SourceError(f"{where}: data_type is {dtype!r:.40}; {metadata.listed(_DTYPES)} are known")
    (n_channels,) = metadata.shape([info.get("num_channels", 1)], f"{where}: num_channels")
    arrays = [_scale(address, i, metadata.mapping(s, where), dtype, n_channels) for i, s in enumerate(scales)]
    levels = [_level(replace(array, is_alone=len(arrays) == 1)) for array in arrays]
    return Volume(str(address), "precomputed", levels)


def find_levels(address: Address) -> Sequence[Level]:
    """The levels of the volume at `address`. Raises SourceError where there is none."""
    if (volume := find(address)) is None:
        raise SourceError(f"{address} holds no precomputed volume: info is not there")
    return volume.levels


@dataclass(frozen=True, slots=True)
class PrecomputedScale:
    """A scale of the volume at `address`, its `chunks`, and its voxel size in nm, x y z.

    `stated`: the scale as tensorstore takes it. `is_alone`: the volume has no other, so that an absent folder
    says nothing: none of its chunks is there yet.
    """

    address: Address
    chunks: ChunkObjects
    stated: Mapping[str, object]
    n_channels: int
    resolution: Sequence[Fraction]
    is_alone: bool = True

    def open(self, cache_bytes: int = 0, channel: int | None = None) -> Reader:
        """The scale, zyx. Raises SourceError or TransientError."""
        folder, sharding = self.chunks.folder, self.chunks.sharding
        if not self.is_alone and folder.is_local and not folder.path.is_dir():
            raise AbsentLevelError(f"{folder} is a level that info declares, and it is not there")
        is_for_tensorstore = self.chunks.encoding != "compresso" and stores.is_for_tensorstore(folder)
        if not is_for_tensorstore or self._has_compressed_names():
            return self._by_chunk(cache_bytes, channel)
        reader = ChunkedReader(self._by_tensorstore(cache_bytes), "xyzc", str(folder), channel)
        if sharding is not None:
            return shards.strict(reader, folder, sharding, str(folder))
        if self.n_channels > 1 or self.chunks.encoding == "compressed_segmentation":
            return reader
        by_chunk = partial(self._by_chunk, cache_bytes, channel)
        strict = PackedChunks(reader, self.chunks, by_chunk)
        return strict if folder.is_local else OtherReader(strict, [by_chunk], MissingDataError)

    def _by_tensorstore(self, cache_bytes: int) -> tensorstore.TensorStore:
        kind = {"type": "image", "data_type": self.chunks.dtype, "num_channels": self.n_channels}
        spec = {
            "driver": "neuroglancer_precomputed",
            "kvstore": stores.kvstore_of(self.address),
            "multiscale_metadata": kind,
            "scale_metadata": self.stated,
            "assume_metadata": True,
        }
        return open_for_reading(spec, str(self.chunks.folder), cache_bytes)

    def _by_chunk(self, cache_bytes: int, channel: int | None) -> Reader:
        if self.n_channels > 1:
            raise SourceError(
                f"{self.chunks.folder} has {self.n_channels} channels, and chunks that are decoded singly "
                f"({self.chunks.encoding}): these are read with one channel"
            )
        what, encoding = str(self.chunks.folder), self.chunks.encoding
        known = DecodedHere(encoding, "imagecodecs" if encoding != "compresso" else encoding, is_remote=False)
        return ChunkedReader(self.chunks.open(cache_bytes), "xyzc", what, channel, known)

    def _has_compressed_names(self) -> bool:
        """True for a local copy whose chunks tensorstore would not see."""
        folder = self.chunks.folder
        if not folder.is_local or self.chunks.sharding is not None:
            return False
        names = islice(objects.list_names(folder), _NAMES_LOOKED_AT)
        return any(name.endswith(COMPRESSED_NAMES) for name in names)


class PackedChunks:
    """Reads through tensorstore until a chunk that does not decode turns out to be gzip inside.

    A bucket sends such objects unpacked; who copies them as they are stored copies gzip, without a word of
    it. From then on all chunks are decoded one by one.
    """

    def __init__(self, reader: Reader, chunks: ChunkObjects, by_chunk: Callable[[], Reader]) -> None:
        self._reader, self._chunks, self._by_chunk = reader, chunks, by_chunk
        self.shape, self.dtype, self.codec = reader.shape, reader.dtype, reader.codec
        self.chunk_shape, self.shard_shape = reader.chunk_shape, reader.shard_shape
        self.fill_value, self.read_by = reader.fill_value, reader.read_by

    def read(self, box: Box) -> NDArray[np.generic]:
        """The voxels of `box`, zyx. Raises DataError or TransientError."""
        try:
            return self._reader.read(box)
        except CorruptDataError:
            if not self._is_packed(box):
                raise
        self._reader = self._by_chunk()
        return self._reader.read(box)

    def _is_packed(self, box: Box) -> bool:
        """True where one of the first chunks that `box` touches begins as gzip does."""
        grid = BlockGrid(self.shape, self.chunk_shape)
        boxes = map(grid.box, islice(grid.touching(box), _CHUNKS_LOOKED_AT))
        heads = (objects.read_bytes(self._chunks.folder / self._name(chunk), 2) for chunk in boxes)
        return codecs.GZIP in heads

    def _name(self, chunk: Box) -> str:
        corners = (
            tuple(n + o for n, o in zip(corner[::-1], self._chunks.offset, strict=True))
            for corner in (chunk.start, chunk.stop)
        )
        return self._chunks.name_of(*corners)


def _level(array: PrecomputedScale) -> Level:
    key = str(array.stated["key"])
    resolution = array.resolution
    corner = [s * o for s, o in zip(resolution, array.chunks.offset, strict=True)]
    return Level(key, array, zyx_of(resolution[::-1]), zyx_of(corner[::-1]), is_in_nm=True)


def _scale(
    address: Address, index: int, scale: dict[str, object], dtype: str, n_channels: int
) -> PrecomputedScale:
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
    stated: dict[str, object] = {
        "key": key,
        "size": list(size),
        "chunk_size": list(chunk),
        "resolution": [float(s) for s in resolution],
        "voxel_offset": list(offset),
        "encoding": encoding,
    }
    sharding = None
    if scale.get("sharding") is not None:
        sharding = _in_whole_numbers(metadata.mapping(scale["sharding"], f"{where}.sharding"))
        stated["sharding"] = sharding
    if encoding == "compressed_segmentation":
        stated[_BLOCK_SIZE] = list(metadata.shape(scale.get(_BLOCK_SIZE), f"{where}.{_BLOCK_SIZE}", 3))
    chunks = ChunkObjects(address / key, encoding, dtype, size, chunk, offset, sharding)
    return PrecomputedScale(address, chunks, stated, n_channels, resolution)


def _in_whole_numbers(found: Mapping[str, object]) -> dict[str, object]:
    """The same, 2.0 as 2."""
    return {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in found.items()}
