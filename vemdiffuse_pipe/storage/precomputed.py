"""Neuroglancer precomputed volumes. Sizes are nm, x y z; the corner of voxel 0 is voxel_offset * resolution.

tensorstore reads them, except where a local copy has compressed files with names like `0-64_0-64_0-64.gz`:
there it sees no chunk at all, and cloud-volume reads instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.storage import metadata, objects, stores
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.chunked import ChunkedReader, open_for_reading
from vemdiffuse_pipe.storage.compressed_files import CompressedFiles
from vemdiffuse_pipe.storage.levels import Level, Missing, Reader, Volume, zyx_of

ENCODINGS = ("raw", "jpeg", "png", "compressed_segmentation")
_COMPRESSED_NAMES = (".gz", ".br", ".zst", ".xz", ".bz2")
_NAMES_LOOKED_AT = 100_000


def find(address: Address) -> Volume | None:
    """The volume at `address`; None where there is no `info`. Raises SourceError."""
    info = metadata.read_document(address / "info")
    if info is None:
        return None
    where = str(address / "info")
    scales = metadata.items(info.get("scales"), f"{where}: scales")
    if info.get("num_channels", 1) != 1:
        raise SourceError(f"{where}: found {info['num_channels']!r:.40} channels; one is needed")
    levels = [
        _level(address, i, metadata.mapping(s, where), f"{where}: scales[{i}]") for i, s in enumerate(scales)
    ]
    return Volume(str(address), "precomputed", levels)


@dataclass(frozen=True, slots=True)
class PrecomputedScale:
    """The scale that is number `index` in the `info` at `address`, its chunks under `key`."""

    address: Address
    index: int
    key: str
    is_sharded: bool

    def open(self, cache_bytes: int, missing: Missing) -> Reader:
        """The scale, zyx."""
        if self.address.is_local and not self.is_sharded and _has_compressed_names(self.address / self.key):
            return CompressedFiles(self.address, self.index, cache_bytes, missing)
        what = str(self.address / self.key)
        spec = {
            "driver": "neuroglancer_precomputed",
            "kvstore": stores.kvstore_of(self.address),
            "scale_index": self.index,
        }
        return ChunkedReader(open_for_reading(spec, what, cache_bytes, missing), (2, 1, 0), what)


def _level(address: Address, index: int, scale: dict[str, object], where: str) -> Level:
    key = metadata.inner_path(scale.get("key"), f"{where}.key")
    encoding = scale.get("encoding")
    if encoding not in ENCODINGS:
        raise SourceError(f"{where}.encoding: found {encoding!r:.40}; {metadata.listed(ENCODINGS)} are read")
    metadata.shape(scale.get("size"), f"{where}.size", 3)
    for chunk in metadata.items(scale.get("chunk_sizes"), f"{where}.chunk_sizes"):
        metadata.chunk_shape(chunk, f"{where}.chunk_sizes", 3)
    size = metadata.sizes(scale.get("resolution"), f"{where}.resolution", 3)
    offset = metadata.integers(scale.get("voxel_offset", [0, 0, 0]), f"{where}.voxel_offset", 3)
    corner = [s * o for s, o in zip(size, offset, strict=True)]
    array = PrecomputedScale(address, index, key, scale.get("sharding") is not None)
    return Level(key, array, zyx_of(size[::-1]), zyx_of(corner[::-1]), is_in_nm=True)


def _has_compressed_names(folder: Address) -> bool:
    names = islice(objects.list_names(folder), _NAMES_LOOKED_AT)
    return any(name.endswith(_COMPRESSED_NAMES) for name in names)
