"""Arrays of N5: their metadata checked and said again without what decoding does not depend on, then opened.

A chunk is an object of its own: a header, big-endian, and the voxels, fastest axis first, compressed.

    uint16 mode | uint16 rank | uint32 length of each axis | [mode 1: uint32 number of voxels] | voxels

tensorstore reads them; where it does not reach the store they are decoded here.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import AbsentLevelError, CorruptDataError, SourceError
from vemdiffuse_pipe.storage import codecs, metadata, objects, stores
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.chunked import ChunkedReader, DecodedHere, open_for_reading
from vemdiffuse_pipe.storage.decoded import Index, view_of_chunks

ATTRIBUTES = "attributes.json"

Attributes = Mapping[str, object]

_TYPES = ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64"]
_SLACK = 1 << 16  # bytes by which a chunk may be longer than its voxels
_BLOSC_NAMES = ("blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd")

# What N5 calls a compression, as tensorstore takes it and as codecs.py does. Decoding depends on nothing
# else.
_COMPRESSIONS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "raw": ({"type": "raw"}, ""),
    "gzip": ({"type": "gzip", "level": 1}, "gzip"),
    "bzip2": ({"type": "bzip2", "blockSize": 9}, "bz2"),
    "xz": ({"type": "xz", "preset": 6}, "lzma"),
    "blosc": ({"type": "blosc", "clevel": 5, "shuffle": 0, "blocksize": 0}, "blosc"),
    "zstd": ({"type": "zstd", "level": 1}, "zstd"),
}
_OTHER_NAMES = {"zstandard": "zstd", "bz2": "bzip2", "lzma": "xz"}


@dataclass(frozen=True, slots=True)
class N5Array:
    """The array at `address`; `axes`: a letter an axis, fastest first, where the metadata names them."""

    address: Address
    axes: Sequence[str] | None = None

    def spec_of_shape(self, shape: Sequence[int]) -> dict[str, object]:
        """The array as tensorstore names it, with `shape`, zyx, instead of its own."""
        attributes = metadata.read_document(self.address / ATTRIBUTES) or {}
        assumed = {"metadata": {**attributes, "dimensions": list(shape[::-1])}, "assume_metadata": True}
        return {"driver": "n5", "kvstore": stores.kvstore_of(self.address), **assumed}

    def open(self, cache_bytes: int = 0, channel: int | None = None) -> ChunkedReader:
        """The array, zyx. Raises SourceError for metadata that is absent, hostile or not of a volume."""
        attributes = metadata.read_document(self.address / ATTRIBUTES)
        if attributes is None:
            raise AbsentLevelError(f"{self.address} holds no N5 array: {ATTRIBUTES} is not there")
        restated = _restated(attributes, str(self.address / ATTRIBUTES))
        rank, what = len(restated["dimensions"]), str(self.address)
        if rank < 3:
            raise SourceError(f"{self.address} has {rank} axes; a volume needs three: x, y, z")
        axes = self.axes or "xyzct"
        if len(axes) < rank:
            raise SourceError(f"{what} has {rank} axes, but {len(axes)} are named: {', '.join(axes)}")
        if stores.is_for_tensorstore(self.address):
            spec = {"driver": "n5", "kvstore": stores.kvstore_of(self.address)}
            assumed = {"metadata": restated, "assume_metadata": True}
            return ChunkedReader(
                open_for_reading({**spec, **assumed}, what, cache_bytes), axes, what, channel
            )
        by_chunk = _N5Chunks(self.address, restated).open(cache_bytes)
        known = DecodedHere(restated["compression"]["type"], "numcodecs", not self.address.is_local)
        return ChunkedReader(by_chunk, axes, what, channel, known)


@dataclass(frozen=True, slots=True)
class _N5Chunks:
    """The chunks of an array, decoded here; `array`: its metadata, restated."""

    address: Address
    array: Mapping[str, Any]

    def open(self, cache_bytes: int) -> Any:
        return view_of_chunks(
            self._voxels,
            str(self.address),
            shape=self.array["dimensions"],
            chunk=self.array["blockSize"],
            dtype=self.array["dataType"],
            cache_bytes=cache_bytes,
            is_fortran=True,
        )

    def _voxels(self, start: Index, stop: Index) -> NDArray[np.generic] | None:
        index = (a // c for a, c in zip(start, self.array["blockSize"], strict=True))
        data = objects.read_bytes(self.address / "/".join(map(str, index)))
        return (
            None
            if data is None
            else self._decoded(data, tuple(b - a for a, b in zip(start, stop, strict=True)))
        )

    def _decoded(self, data: bytes, shape: Index) -> NDArray[np.generic]:
        """The first `shape` voxels of a chunk, which has as many or more. Raises CorruptDataError."""
        mode, rank = struct.unpack(">HH", data[:4])
        end = 4 + 4 * rank
        stored = struct.unpack(f">{rank}I", data[4:end])
        is_whole = rank == len(shape) and all(s <= n <= c for s, n, c in self._lengths(shape, stored))
        if mode not in (0, 1) or not is_whole:
            raise CorruptDataError(
                f"a chunk says that it has {stored} voxels, in mode {mode}; {shape} are needed"
            )
        big = np.dtype(self.array["dataType"]).newbyteorder(">")
        n_bytes = prod(stored) * big.itemsize
        decoded = self._decompressed(data[end + 4 * mode :], n_bytes + _SLACK)
        voxels = np.frombuffer(decoded, big, count=prod(stored)).reshape(stored, order="F")
        return voxels[tuple(slice(0, n) for n in shape)]

    def _lengths(self, shape: Index, stored: Index) -> zip[tuple[int, int, int]]:
        return zip(shape, stored, self.array["blockSize"], strict=True)

    def _decompressed(self, data: bytes, at_most: int) -> bytes:
        compression = self.array["compression"]
        codec = _COMPRESSIONS[compression["type"]][1]
        if compression.get("useZlib"):
            codec = "zlib"
        return codecs.decode({"id": codec}, data, at_most) if codec else data


def _restated(attributes: Attributes, where: str) -> dict[str, Any]:
    """What a reader is told of an array. Raises SourceError for what is hostile or not read."""
    shape = metadata.shape(attributes.get("dimensions"), f"{where}: dimensions")
    chunk = metadata.chunk_shape(attributes.get("blockSize"), f"{where}: blockSize", len(shape))
    dtype = attributes.get("dataType")
    if dtype not in _TYPES:
        raise SourceError(f"{where}: dataType is {dtype!r:.40}; {metadata.listed(_TYPES[:8])} are read")
    return {
        "dimensions": list(shape),
        "blockSize": list(chunk),
        "dataType": dtype,
        "compression": _compression(attributes, where),
    }


def _compression(attributes: Attributes, where: str) -> dict[str, Any]:
    """Before N5 2.0 compression was a bare name."""
    stated = attributes.get("compression", attributes.get("compressionType", "raw"))
    found = {"type": stated} if isinstance(stated, str) else metadata.mapping(stated, f"{where}: compression")
    name = str(found.get("type"))
    name = _OTHER_NAMES.get(name, name)
    if name not in _COMPRESSIONS:
        raise SourceError(
            f"{where}: compression is {name!r:.40}; {metadata.listed(list(_COMPRESSIONS))} are read"
        )
    restated = dict(_COMPRESSIONS[name][0])
    if name == "gzip":
        restated["useZlib"] = found.get("useZlib") is True
    if name == "blosc":
        restated["cname"] = found.get("cname") if found.get("cname") in _BLOSC_NAMES else "lz4"
    return restated
