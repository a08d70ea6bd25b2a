"""Zarr arrays, version 2 and 3, plain and sharded: their metadata checked, then opened.

tensorstore reads them where it has their codecs and reaches their store; zarr_chunks.py reads the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from vemdiffuse_pipe.errors import AbsentLevelError, MissingDataError, SourceError
from vemdiffuse_pipe.storage import metadata, stores
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.chunked import ChunkedReader, DecodedHere, open_for_reading
from vemdiffuse_pipe.storage.consolidated import Documents
from vemdiffuse_pipe.storage.levels import Reader
from vemdiffuse_pipe.storage.other_reader import OtherReader
from vemdiffuse_pipe.storage.zarr_chunks import ZarrChunks, codec_name
from vemdiffuse_pipe.storage.zarr_metadata import ZarrMetadata, version_2, version_3


@dataclass(frozen=True, slots=True)
class ZarrArray:
    """The array at `address`.

    `axes`: a letter for each axis in stored order, where the metadata around it names them. `gathered`: what
    a document further up says of it, by name; asked where the array has no documents of its own.
    """

    address: Address
    axes: Sequence[str] | None = None
    gathered: Callable[[], Documents] = dict

    def open(self, cache_bytes: int = 0, channel: int | None = None) -> Reader:
        """The array, zyx. Raises SourceError for metadata that is absent, hostile or not of a volume."""
        array = self._metadata()
        rank, what = len(array.shape), str(self.address)
        axes = self.axes or array.axes or "tczyx"[-rank:]
        if len(axes) != rank:
            raise SourceError(f"{what} has {rank} axes, but its volume names {len(axes)}: {', '.join(axes)}")
        if rank < 3:
            raise SourceError(f"{what} has {rank} axes; a volume needs three: z, y, x")
        opened = partial(self._reader, axes=axes, cache_bytes=cache_bytes, channel=channel)
        others = [partial(opened, other) for other in array.with_other_names()]
        return OtherReader(opened(array), others, MissingDataError)

    def spec_of_shape(self, shape: Sequence[int]) -> dict[str, object]:
        """The array as tensorstore names it, its chunks as they are and `shape` instead of its own."""
        driver, document, _ = self._documents()
        self._metadata()
        assumed = {"metadata": {**document, "shape": list(shape)}, "assume_metadata": True}
        return {"driver": driver, "kvstore": stores.kvstore_of(self.address), **assumed}

    def _reader(
        self, array: ZarrMetadata, axes: Sequence[str], cache_bytes: int, channel: int | None
    ) -> ChunkedReader:
        what = str(self.address)
        if not array.is_for_tensorstore or not stores.is_for_tensorstore(self.address):
            by_chunk = ZarrChunks(self.address, array).open(cache_bytes)
            known = DecodedHere(codec_name(array.document), "zarr-python", not self.address.is_local)
            return ChunkedReader(by_chunk, axes, what, channel, known, array.fill)
        assumed = {"metadata": array.document, "assume_metadata": True}
        spec = {"driver": array.driver, "kvstore": stores.kvstore_of(self.address), **assumed}
        return ChunkedReader(open_for_reading(spec, what, cache_bytes), axes, what, channel, fill=array.fill)

    def _metadata(self) -> ZarrMetadata:
        driver, document, attributes = self._documents()
        if driver == "zarr3":
            return version_3(document, str(self.address / "zarr.json"))
        return version_2(document, attributes, str(self.address / ".zarray"))

    def _documents(self) -> tuple[str, Mapping[str, object], Mapping[str, object]]:
        """Tensorstore's driver, the document of the array and, in version 2, its attributes."""
        for of_name in (self._own, self._gathered):
            for driver, name in (("zarr3", "zarr.json"), ("zarr", ".zarray")):
                if (document := of_name(name)) is not None:
                    return driver, document, {} if driver == "zarr3" or self.axes else self._attributes()
        raise AbsentLevelError(f"{self.address} holds no zarr array: neither zarr.json nor .zarray is there")

    def _attributes(self) -> Mapping[str, object]:
        """What version 2 says beside an array."""
        return self._own(".zattrs") or self._gathered(".zattrs") or {}

    def _own(self, name: str) -> Mapping[str, object] | None:
        return metadata.read_document(self.address / name)

    def _gathered(self, name: str) -> Mapping[str, object] | None:
        return self.gathered().get(name)
