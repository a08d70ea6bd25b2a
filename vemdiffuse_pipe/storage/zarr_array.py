"""Zarr arrays, version 2 and 3, plain and sharded: their metadata checked, then opened."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.storage import metadata, stores
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.chunked import ChunkedReader, open_for_reading

Document = dict[str, object]

COMPRESSORS = ("blosc", "bz2", "gzip", "zlib", "zstd")  # of version 2


@dataclass(frozen=True, slots=True)
class ZarrArray:
    """The array at `address`; `axes` names its axes in stored order, where the metadata around it does."""

    address: Address
    axes: Sequence[str] | None = None

    def open(self, cache_bytes: int = 0, channel: int | None = None) -> ChunkedReader:
        """The array, zyx. Raises SourceError for metadata that is absent, hostile or not of a volume."""
        what = str(self.address)
        driver, document, rank = self._checked()
        axes = self.axes or _dimension_names(document) or "tczyx"[-rank:]
        if len(axes) != rank:
            raise SourceError(f"{what} has {rank} axes, but its volume names {len(axes)}: {', '.join(axes)}")
        if rank < 3:
            raise SourceError(f"{what} has {rank} axes; a volume needs three: z, y, x")
        spec = {"driver": driver, "kvstore": stores.kvstore_of(self.address), **_restated(document)}
        return ChunkedReader(open_for_reading(spec, what, cache_bytes), axes, what, channel)

    def spec_of_shape(self, shape: Sequence[int]) -> dict[str, object]:
        """The array as tensorstore names it, its chunks as they are and `shape` instead of its own."""
        driver, document, _ = self._checked()
        assumed = {"metadata": {**document, "shape": list(shape)}, "assume_metadata": True}
        return {"driver": driver, "kvstore": stores.kvstore_of(self.address), **assumed}

    def _checked(self) -> tuple[str, Document, int]:
        """Tensorstore's driver, the metadata, and the rank. Raises SourceError for hostile metadata."""
        if (document := metadata.read_document(self.address / "zarr.json")) is not None:
            return "zarr3", document, _check_version_3(document, str(self.address / "zarr.json"))
        if (document := metadata.read_document(self.address / ".zarray")) is not None:
            return "zarr", document, _check_version_2(document, str(self.address / ".zarray"))
        raise SourceError(f"{self.address} holds no zarr array: neither zarr.json nor .zarray is there")


def _restated(document: Document) -> Document:
    """The metadata, where it must be told to tensorstore in other words than its writer's.

    Java states zlib's default level as -1, which has no use in reading; zarrita states false as 0.
    """
    compressor = document.get("compressor")
    if isinstance(compressor, dict) and compressor.get("level") == -1:
        return {"metadata": {**document, "compressor": {**compressor, "level": 1}}, "assume_metadata": True}
    if document.get("data_type") == "bool" and document.get("fill_value") in (0, 1):
        return {"metadata": {**document, "fill_value": document["fill_value"] == 1}, "assume_metadata": True}
    return {}


def _dimension_names(document: Document) -> Sequence[str]:
    """What version 3 calls the axes; nothing where it does not call three of them z, y and x."""
    found = document.get("dimension_names")
    names = [str(name).lower() for name in found] if isinstance(found, list) else []
    return names if set(names) >= {"z", "y", "x"} and len(set(names)) == len(names) else ()


def _check_version_2(document: Document, where: str) -> int:
    rank = len(metadata.shape(document.get("shape"), f"{where}: shape"))
    metadata.chunk_shape(document.get("chunks"), f"{where}: chunks", rank)
    dtype, compressor = document.get("dtype"), document.get("compressor")
    if not isinstance(dtype, str) or re.fullmatch(r"[<>|][biuf]\d{1,2}", dtype) is None:
        raise SourceError(f"{where}: dtype is {dtype!r:.40}; numbers are read")
    if isinstance(compressor, dict) and compressor.get("id") not in COMPRESSORS:
        raise SourceError(
            f"{where}: compressor is {compressor.get('id')!r:.40}; {metadata.listed(COMPRESSORS)} are read"
        )
    return rank


def _check_version_3(document: Document, where: str) -> int:
    if document.get("node_type") != "array":
        raise SourceError(f"{where}: node_type is {document.get('node_type')!r:.40}; an array is needed")
    rank = len(metadata.shape(document.get("shape"), f"{where}: shape"))
    codecs = metadata.items(document.get("codecs"), f"{where}: codecs")
    sharding = [c for c in codecs if isinstance(c, dict) and c.get("name") == "sharding_indexed"]
    at_most = metadata.MAX_OBJECT if sharding else metadata.MAX_CHUNK
    _check_chunks(document.get("chunk_grid"), f"{where}: chunk_grid", rank, at_most)
    for codec in sharding:
        _check_chunks(codec, f"{where}: codecs", rank, metadata.MAX_CHUNK)
    return rank


def _check_chunks(value: object, where: str, rank: int, at_most: int) -> None:
    configuration = metadata.mapping(metadata.mapping(value, where).get("configuration"), where)
    metadata.chunk_shape(configuration.get("chunk_shape"), f"{where}: chunk_shape", rank, at_most)
