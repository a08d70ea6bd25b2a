"""An image of several levels, in any format that is written here: its metadata, and each level to write.

    what             ome-zarr 0.5 / 0.4             n5                        precomputed
    a level          em/1/zarr.json (.zarray)       em/s1/attributes.json     a scale of em/info
    names its levels em/zarr.json (.zattrs)         em/attributes.json        em/info

An image names a level only once that level is complete. Until then a precomputed scale is known to its writer
alone: the `info` that it reads lies in memory, over a store that has the `info` of the levels that are done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.config import Json, OutputFormat
from vemdiffuse_pipe.geometry import morton
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.geometry.pyramid import level_frame, level_start
from vemdiffuse_pipe.storage import images, layout, objects, shards, stores
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.chunked import ChunkedReader, WholeShards, open_for_reading, open_for_writing
from vemdiffuse_pipe.storage.encodings import Encoding, encoder
from vemdiffuse_pipe.storage.levels import Reader
from vemdiffuse_pipe.storage.n5_array import N5Array
from vemdiffuse_pipe.storage.shards import ShardWriter
from vemdiffuse_pipe.storage.zarr_array import ZarrArray

ORIGIN: Zyx = (0, 0, 0)


class LevelReader(Protocol):
    """Reads what is stored."""

    def read(self, box: Box) -> NDArray[np.generic]:
        """The voxels of `box`, zyx. Raises DataError or TransientError."""
        ...


class LevelWriter(Protocol):
    """Writes whole shards."""

    def write(self, box: Box, voxels: NDArray[np.generic]) -> None:
        """Write `box`, durably; `voxels` are of its shape. Raises OutputError, StorageFullError."""
        ...


@dataclass(frozen=True, slots=True)
class OpenLevel:
    """One level, for reading and for writing whole shards."""

    reader: LevelReader
    """What is stored, zyx."""
    writer: LevelWriter
    """Writes boxes of whole shards."""


@dataclass(frozen=True, slots=True)
class ImageLevels:
    """An image at `address` whose levels are made one after the other."""

    address: Address
    """Folder of the image."""
    own_folder: Address
    """Folder for what no other program reads: receipts, and metadata of levels that are not complete."""
    name: str
    """What viewers call it."""
    output_format: OutputFormat
    """How voxels are stored."""
    frame: Frame
    """Of level 0."""
    chunk_shape: Zyx
    """Unit of reading, zyx."""
    shard_shape: Zyx
    """Unit of writing of level 0, zyx; no level has a larger one."""
    dtype: str = "uint8"
    """Numpy's name: uint8, or uint64 for labels."""
    encoding: Encoding = "raw"
    """Of a precomputed chunk."""
    attributes: Mapping[str, Json] = field(default_factory=dict)
    """What made the image: goes into precomputed's provenance."""

    @property
    def start(self) -> Zyx:
        """Voxel 0 on the lattice of coarse voxels: precomputed counts from 0 nm, other formats from it."""
        if self.output_format != "precomputed":
            return ORIGIN
        return images.whole_corner(self.frame)

    def level_frame(self, level: int) -> Frame:
        """Where the voxels of `level` lie."""
        return level_frame(self.frame, level, self.start)

    def level_name(self, level: int) -> str:
        """The folder of a level, within the image."""
        match self.output_format:
            case "n5":
                return f"s{level}"
            case "precomputed":
                return images.scale_key(self.level_frame(level))
            case _:
                return str(level)

    def level_shards(self, level: int) -> Zyx:
        """Unit of writing of `level`, zyx; a coarse precomputed level may have fewer chunks than a shard."""
        if self.output_format != "precomputed" or self.shard_shape == self.chunk_shape:
            return self.shard_shape
        counts = images.chunk_counts(self.level_frame(level).shape, self.chunk_shape)
        possible = [
            _times(morton.covered(counts, n), self.chunk_shape) for n in range(morton.n_bits(counts) + 1)
        ]
        return max((s for s in possible if prod(s) <= prod(self.shard_shape)), key=prod)

    def prepare_level(self, level: int) -> None:
        """Write what the voxels of `level` need around them, unless it is there. Many processes may at once.

        Raises OutputError, StorageFullError or TransientError.
        """
        for key, data in self._level_objects(level).items():
            place = self.own_folder if self.output_format == "precomputed" else self.address
            objects.write_bytes_if_absent(place / key, data)

    def open_level(self, level: int) -> OpenLevel:
        """A level that was prepared. Raises SourceError, DataError or TransientError."""
        if self.output_format == "precomputed":
            return self._open_scale(level)
        place = self.address / self.level_name(level)
        stored = N5Array(place) if self.output_format == "n5" else ZarrArray(place)
        reader = stored.open()
        shape = _rounded_up(reader.shape, reader.shard_shape)
        writer = open_for_writing(stored.spec_of_shape(shape), str(place))
        axes = "xyz" if self.output_format == "n5" else "zyx"
        return OpenLevel(reader, WholeShards(writer, axes, shape))

    def publish(self, n_levels: int) -> None:
        """Let the image name its first `n_levels`, which are complete: one object, put as a whole.

        Raises OutputError, StorageFullError or TransientError.
        """
        for key, data in self.documents(n_levels).items():
            objects.write_bytes_atomically(self.address / key, data)

    def documents(self, n_levels: int) -> layout.Objects:
        """The objects that name the levels, by key within the image."""
        frames = [self.level_frame(level) for level in range(n_levels)]
        match self.output_format:
            case "n5":
                content = images.n5_group(self.name, frames)
                return {"attributes.json": images.document(content)}
            case "precomputed":
                scales = [self._scale(level) for level in range(n_levels)]
                provenance = images.precomputed_provenance(self.attributes, images.moved_nm(self.frame))
                info = images.precomputed_info(scales, self.dtype)
                return {"provenance": images.document(provenance), "info": images.document(info)}
            case version:
                return layout.image_group(self.name, frames, "0.5" if version == "ome-zarr-0.5" else "0.4")

    def _level_objects(self, level: int) -> layout.Objects:
        frame, name = self.level_frame(level), self.level_name(level)
        match self.output_format:
            case "n5":
                array = images.n5_array(frame, self.chunk_shape, self.dtype, level)
                return {f"{name}/attributes.json": images.document(array)}
            case "precomputed":
                info = images.precomputed_info([self._scale(level)], self.dtype)
                return {f"{self._unfinished(level)}": images.document(info)}
            case version:
                short: layout.Version = "0.5" if version == "ome-zarr-0.5" else "0.4"
                return layout.volume(
                    f"{name}/", frame.shape, self.chunk_shape, self.shard_shape, short, self.dtype
                )

    def _scale(self, level: int) -> Json:
        return images.precomputed_scale(
            self.level_frame(level),
            level_start(self.start, level),
            self.chunk_shape,
            self.level_shards(level),
            self.encoding,
        )

    def _unfinished(self, level: int) -> str:
        """The key, in our own folder, of the `info` of a level that is being made."""
        return f"levels/{self.name}-{level}/info"

    def _open_scale(self, level: int) -> OpenLevel:
        what, shard_shape = str(self.address / self.level_name(level)), self.level_shards(level)
        known = self.own_folder / self._unfinished(level)
        store = {
            "driver": "kvstack",
            "layers": [
                {"base": stores.kvstore_of(self.address)},
                {"exact": "info", "base": {**stores.kvstore_of(known.parent), "path": known.key}},
            ],
        }
        spec = {"driver": "neuroglancer_precomputed", "kvstore": store, "scale_index": 0}
        reader: Reader = ChunkedReader(open_for_reading(spec, what, cache_bytes=0), "xyzc", what)
        if shard_shape == self.chunk_shape:
            writer = open_for_writing(spec, what)
            return OpenLevel(reader, WholeShards(writer, "xyzc", reader.shape))
        folder = self.address / self.level_name(level)
        sharding = images.sharding(reader.shape, self.chunk_shape, shard_shape)
        encode = encoder(self.encoding, self.dtype)
        return OpenLevel(
            shards.strict(reader, folder, sharding, what),
            ShardWriter(folder, reader.shape, self.chunk_shape, shard_shape, encode),
        )


def _times(a: Zyx, b: Zyx) -> Zyx:
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]


def _rounded_up(shape: Zyx, unit: Zyx) -> Zyx:
    z, y, x = (-(-n // u) * u for n, u in zip(shape, unit, strict=True))
    return z, y, x
