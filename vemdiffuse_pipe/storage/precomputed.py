"""Neuroglancer precomputed volumes. Sizes are nm, x y z; the corner of voxel 0 is voxel_offset * resolution.

tensorstore reads them. cloud-volume does where tensorstore does not know the encoding, and where a local copy
has compressed files with names like `0-64_0-64_0-64.gz`, of which tensorstore sees none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.storage import metadata, objects, shards, stores
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.chunked import ChunkedReader, open_for_reading
from vemdiffuse_pipe.storage.compressed_files import CompressedFiles
from vemdiffuse_pipe.storage.levels import Level, Reader, Volume, zyx_of

ENCODINGS = ("raw", "jpeg", "png", "compressed_segmentation")
_OF_CLOUDVOLUME = ("compresso", "crackle")
_COMPRESSED_NAMES = (".gz", ".br", ".zst", ".xz", ".bz2")
_NAMES_LOOKED_AT = 100_000


def find(address: Address) -> Volume | None:
    """The volume at `address`; None where there is no `info`. Raises SourceError."""
    info = metadata.read_document(address / "info")
    if info is None:
        return None
    where = str(address / "info")
    scales = metadata.items(info.get("scales"), f"{where}: scales")
    metadata.shape([info.get("num_channels", 1)], f"{where}: num_channels")
    levels = [
        _level(address, i, metadata.mapping(s, where), f"{where}: scales[{i}]") for i, s in enumerate(scales)
    ]
    return Volume(str(address), "precomputed", levels)


def find_levels(address: Address) -> Sequence[Level]:
    """The levels of the volume at `address`. Raises SourceError where there is none."""
    if (volume := find(address)) is None:
        raise SourceError(f"{address} holds no precomputed volume: info is not there")
    return volume.levels


@dataclass(frozen=True, slots=True)
class PrecomputedScale:
    """The scale that is number `index` in the `info` at `address`, its chunks under `key`."""

    address: Address
    index: int
    key: str
    sharding: dict[str, object] | None
    encoding: str

    def open(self, cache_bytes: int = 0, channel: int | None = None) -> Reader:
        """The scale, zyx."""
        if self.encoding in _OF_CLOUDVOLUME or self._has_compressed_names():
            return CompressedFiles(self.address, self.index, cache_bytes, channel)
        what = str(self.address / self.key)
        spec = {
            "driver": "neuroglancer_precomputed",
            "kvstore": stores.kvstore_of(self.address),
            "scale_index": self.index,
        }
        reader = ChunkedReader(open_for_reading(spec, what, cache_bytes), "xyzc", what, channel)
        if self.sharding is None:
            return reader
        return shards.strict(reader, self.address / self.key, self.sharding, what)

    def _has_compressed_names(self) -> bool:
        """True for a local copy whose chunks tensorstore would not see."""
        if self.sharding is not None or not self.address.is_local:
            return False
        names = islice(objects.list_names(self.address / self.key), _NAMES_LOOKED_AT)
        return any(name.endswith(_COMPRESSED_NAMES) for name in names)


def _sharding(scale: dict[str, object], where: str) -> dict[str, object] | None:
    found = scale.get("sharding")
    return None if found is None else metadata.mapping(found, f"{where}.sharding")


def _level(address: Address, index: int, scale: dict[str, object], where: str) -> Level:
    key = metadata.inner_path(scale.get("key"), f"{where}.key")
    encoding = metadata.text(scale.get("encoding"), f"{where}.encoding")
    if encoding not in (*ENCODINGS, *_OF_CLOUDVOLUME):
        known = metadata.listed([*ENCODINGS, *_OF_CLOUDVOLUME])
        raise SourceError(f"{where}.encoding: found {encoding!r:.40}; {known} are read")
    metadata.shape(scale.get("size"), f"{where}.size", 3)
    for chunk in metadata.items(scale.get("chunk_sizes"), f"{where}.chunk_sizes"):
        metadata.chunk_shape(chunk, f"{where}.chunk_sizes", 3)
    size = metadata.sizes(scale.get("resolution"), f"{where}.resolution", 3)
    offset = metadata.integers(scale.get("voxel_offset", [0, 0, 0]), f"{where}.voxel_offset", 3)
    corner = [s * o for s, o in zip(size, offset, strict=True)]
    array = PrecomputedScale(address, index, key, _sharding(scale, where), encoding)
    return Level(key, array, zyx_of(size[::-1]), zyx_of(corner[::-1]), is_in_nm=True)
