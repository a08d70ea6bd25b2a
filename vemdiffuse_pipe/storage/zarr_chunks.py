"""Zarr arrays that tensorstore cannot decode, or whose store it cannot reach: chunk by chunk, by zarr-python.

An object is fetched like any other, so that what is absent, damaged or late is what it is everywhere. Its
bytes are decoded by codecs.py, each step bounded; what is left, numbers out of numbers, zarr-python decodes
as an array of one chunk that lies in memory.

    object  --(shard index)-->  chunk  --bytes codecs-->  bytes  --zarr-python: filters, transpose-->  voxels
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import CorruptDataError, SourceError
from vemdiffuse_pipe.storage import codecs, faults, metadata, objects
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.decoded import Index, view_of_chunks
from vemdiffuse_pipe.storage.zarr_metadata import Document, ZarrMetadata

if TYPE_CHECKING:
    import tensorstore

Codec = Mapping[str, Any]

_ABSENT = (1 << 64) - 1  # offset and length of a chunk that its shard does not have
_SLACK = 1 << 16  # bytes by which a chunk may be longer than its voxels
_MAX_INDICES = 64  # of shards, kept
_MAX_ITEM = 8  # bytes of a number between filters
_ONE_CHUNK = "0"  # joined by dots: the key of the only chunk


@dataclass(frozen=True)
class ZarrChunks:
    """The array at `address`, decoded here."""

    address: Address
    array: ZarrMetadata
    _indices: dict[Index, NDArray[np.uint64] | None] = field(default_factory=dict, repr=False)

    def open(self, cache_bytes: int) -> tensorstore.TensorStore:
        """The array, axes as stored. Raises SourceError for codecs that cannot be decoded here."""
        with faults.opening(str(self.address)):
            _ = self._decoder
        return view_of_chunks(
            self._voxels,
            str(self.address),
            shape=self.array.shape,
            chunk=self._chunk,
            dtype=self.array.dtype,
            cache_bytes=cache_bytes,
        )

    @cached_property
    def _sharding(self) -> Codec | None:
        """How an object is cut into chunks, None where it is one."""
        steps = _steps(self.array.document)
        is_sharded = self.array.driver == "zarr3" and steps[-1]["name"] == "sharding_indexed"
        sharding: Codec | None = steps[-1]["configuration"] if is_sharded else None
        if self.array.driver == "zarr3" and any(s["name"] == "sharding_indexed" for s in steps[:-1]):
            raise SourceError(f"{self.address}: shards that are encoded as a whole are not read")
        if sharding and any(s["name"] == "sharding_indexed" for s in sharding["codecs"]):
            raise SourceError(
                f"{self.address}: shards within shards are read from files, S3, GCS and HTTP only"
            )
        return sharding

    @cached_property
    def _object_shape(self) -> Index:
        """Voxels of an object."""
        document: Mapping[str, Any] = self.array.document
        if self.array.driver == "zarr":
            return tuple(document["chunks"])
        return tuple(document["chunk_grid"]["configuration"]["chunk_shape"])

    @cached_property
    def _chunk(self) -> Index:
        """Voxels that are decoded at once."""
        return self._object_shape if self._sharding is None else tuple(self._sharding["chunk_shape"])

    @cached_property
    def _decoder(self) -> _Decoder:
        steps = _steps(self.array.document) if self._sharding is None else self._sharding["codecs"]
        return _Decoder(self.array, steps, self._chunk)

    def _voxels(self, start: Index, stop: Index) -> NDArray[np.generic] | None:
        index = tuple(a // c for a, c in zip(start, self._chunk, strict=True))
        data = self._fetch(index)
        if data is None:
            return None
        inside = tuple(slice(0, b - a) for a, b in zip(start, stop, strict=True))
        return self._decoder.voxels(data)[inside]

    def _fetch(self, index: Index) -> bytes | None:
        """The bytes of a chunk: an object, or a part of one."""
        if self._sharding is None:
            return objects.read_bytes(self.address / self.array.key_of(index))
        per_object = tuple(s // c for s, c in zip(self._object_shape, self._chunk, strict=True))
        shard = tuple(i // n for i, n in zip(index, per_object, strict=True))
        entries = self._index_of(shard, per_object)
        if entries is None:
            return None
        inner = tuple(i % n for i, n in zip(index, per_object, strict=True))
        offset, length = (int(n) for n in entries[inner])
        if (offset, length) == (_ABSENT, _ABSENT):
            return None
        if length > metadata.MAX_CHUNK or offset > metadata.MAX_OBJECT:
            raise CorruptDataError(
                f"the index of shard {shard} puts chunk {inner} at {offset}, {length} bytes long"
            )
        return objects.read_range(self.address / self.array.key_of(shard), offset, offset + length)

    def _index_of(self, shard: Index, per_object: Index) -> NDArray[np.uint64] | None:
        """Offset and length of each chunk of a shard, None where there is no such object."""
        if shard not in self._indices:
            while len(self._indices) >= _MAX_INDICES:
                self._indices.pop(next(iter(self._indices)), None)
            self._indices[shard] = self._read_index(shard, per_object)
        return self._indices[shard]

    def _read_index(self, shard: Index, per_object: Index) -> NDArray[np.uint64] | None:
        assert self._sharding is not None
        steps = [step["name"] for step in self._sharding["index_codecs"]]
        if steps not in (["bytes"], ["bytes", "crc32c"]):
            raise SourceError(
                f"{self.address}: a shard's index in {' '.join(steps)}; bytes and crc32c are read"
            )
        n_bytes = 16 * prod(per_object) + (4 if "crc32c" in steps else 0)
        start, stop = (0, n_bytes) if self._sharding["index_location"] == "start" else (-n_bytes, None)
        data = objects.read_range(self.address / self.array.key_of(shard), start, stop)
        if data is None:
            return None
        if len(data) != n_bytes:
            raise CorruptDataError(f"shard {shard} is shorter than its index")
        if "crc32c" in steps:
            data = codecs.decode({"id": "crc32c", "location": "end"}, data, n_bytes)
        big = self._sharding["index_codecs"][0]["configuration"]["endian"] == "big"
        return np.frombuffer(data, ">u8" if big else "<u8").reshape(*per_object, 2).astype(np.uint64)


def codec_name(document: Document) -> str:
    """How chunks are encoded, in a few words: 'delta zlib'."""
    steps = _steps(document)
    if steps and steps[-1].get("name") == "sharding_indexed":
        steps = steps[-1]["configuration"]["codecs"]
    names = [str(step.get("id", step.get("name"))).removeprefix("numcodecs.") for step in steps]
    return " ".join(name for name in names if name not in ("bytes", "transpose", "crc32c")) or "raw"


class _Decoder:
    """Makes voxels of a chunk's bytes: in parallel, but for the last step, which has one array in memory."""

    def __init__(self, array: ZarrMetadata, steps: Sequence[Codec], chunk: Index) -> None:
        self._bytes_codecs, rest = _split(array, steps)
        self._at_most = prod(chunk) * _MAX_ITEM + _SLACK
        self._dtype, self._n_voxels = array.dtype, prod(chunk)
        self._key = ".".join([_ONE_CHUNK] * len(chunk))
        self._objects: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._array = _array_of_one_chunk(array, rest, chunk, self._objects)

    def voxels(self, data: bytes) -> NDArray[np.generic]:
        """One whole chunk. Raises CorruptDataError, or what a codec raises, where it does not decode."""
        from zarr.core.buffer import default_buffer_prototype

        for codec in self._bytes_codecs:
            data = self._decoded(codec, data)
        with self._lock:
            self._objects[self._key] = default_buffer_prototype().buffer.from_bytes(data)
            voxels: NDArray[np.generic] = self._array[...]
        return voxels

    def _decoded(self, codec: Codec, data: bytes) -> bytes:
        if codec["id"] != "pcodec":
            return codecs.decode(codec, data, self._at_most)
        import numcodecs.pcodec

        voxels = np.empty(self._n_voxels, self._dtype)
        numcodecs.pcodec.PCodec().decode(data, voxels)
        return voxels.tobytes()


def _steps(document: Document) -> Sequence[Codec]:
    """The codecs of an object, in the order of encoding: by `id` in version 2, by `name` in version 3."""
    whole: Mapping[str, Any] = document
    if whole["zarr_format"] == 3:
        codecs_3: Sequence[Codec] = whole["codecs"]
        return codecs_3
    return [*(whole["filters"] or []), *([whole["compressor"]] if whole["compressor"] else [])]


def _split(array: ZarrMetadata, steps: Sequence[Codec]) -> tuple[Sequence[Codec], Sequence[Codec]]:
    """The steps that bytes are decoded by here, in order of decoding, and those that are left, in theirs."""
    rest, here = list(steps), []
    while rest and (codec := _bytes_codec(rest[-1])) is not None:
        here.append(codec)
        rest.pop()
    if here and here[-1]["id"] == "pcodec" and array.driver == "zarr3":
        rest.append({"name": "bytes", "configuration": {"endian": "little"}})
    return here, rest


def _bytes_codec(step: Codec) -> Codec | None:
    """A step as codecs.py knows it; None for one that makes numbers of numbers, or bytes of numbers."""
    if "name" in step:
        name = str(step["name"]).removeprefix("numcodecs.")
        step = {"id": name, **step.get("configuration", {})}
        if step["id"] == "crc32c":
            step["location"] = "end"
    return step if step["id"] in (*codecs.DECODERS, "pcodec") else None


def _array_of_one_chunk(
    array: ZarrMetadata, rest: Sequence[Codec], chunk: Index, stored: dict[str, Any]
) -> Any:
    """An array of zarr-python over `stored`, in memory, whose only chunk has the shape of every chunk."""
    import json

    import zarr
    from zarr.core.buffer import default_buffer_prototype

    document: dict[str, object] = {**array.document, "shape": list(chunk)}
    if array.driver == "zarr":
        document |= {
            "compressor": None,
            "filters": list(rest) or None,
            "dimension_separator": ".",
            "fill_value": 0,
        }
    else:
        grid = {"name": "regular", "configuration": {"chunk_shape": list(chunk)}}
        names = {"name": "v2", "configuration": {"separator": "."}}
        fill: object = False if array.dtype == "bool" else 0
        document |= {
            "chunk_grid": grid,
            "chunk_key_encoding": names,
            "codecs": list(rest),
            "fill_value": fill,
        }
    key = ".zarray" if array.driver == "zarr" else "zarr.json"
    from_bytes = default_buffer_prototype().buffer.from_bytes
    stored[key] = from_bytes(json.dumps(document).encode())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of codecs that no version of zarr specifies
        store = zarr.storage.MemoryStore(stored, read_only=True)
        return zarr.open_array(store=store, zarr_format=2 if array.driver == "zarr" else 3, mode="r")
