"""Open a volume, whatever its format: the format is found from the metadata, never from the name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from math import prod

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.config import NanPolicy, Policy
from vemdiffuse_pipe.errors import AbsentLevelError, AccessError, SourceError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import Nm, exact_nm, show_nm
from vemdiffuse_pipe.storage import (
    archive,
    hdf5,
    holes,
    metadata,
    mrc,
    n5,
    ngff,
    objects,
    precomputed,
    stores,
    tiff,
)
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.catalogue import source_address
from vemdiffuse_pipe.storage.grey import ToGrey, Window, to_grey
from vemdiffuse_pipe.storage.holes import Policies
from vemdiffuse_pipe.storage.levels import Level, Reader, Volume
from vemdiffuse_pipe.volume import CACHE_BYTES, OnHole, Source, VolumeSpec, Voxels, ignore_hole

_METADATA_FILES = [
    "zarr.json",
    ".zattrs",
    ".zarray",
    ".zgroup",
    ".zmetadata",
    "attributes.json",
    "info",
    "info.gz",
    "provenance",
]
_FORMATS = "OME-Zarr, zarr, N5, neuroglancer precomputed, TIFF, MRC or HDF5"


def open_source(
    url: str | os.PathLike[str],
    *,
    voxel_size_nm: Sequence[float | str] | None = None,
    level: str | None = None,
    channel: int | None = None,
    series: int | None = None,
    pattern: str | None = None,
    window: Window | None = None,
    missing: Policy = "fail",
    corrupt: Policy = "fail",
    nan: NanPolicy = "fail",
    cache_bytes: int = CACHE_BYTES,
) -> Source:
    """The volume at `url`, open for reading: metadata only, no voxel is touched.

    `url`: an address, or the name of a public volume.

    `level`: its name; the finest where neither it nor a voxel size says more. `voxel_size_nm`, zyx: the level
    to take, within 1 %, where the volume states its sizes; the size itself where the volume states none.
    `channel`: which one, from 0, where there are more than one. `series`: which image of a file with more.
    `pattern`: which files of a folder are its sections: "s_{z}_ch0.tif", with * for anything.
    `window` = (low, high): needed for uint16 and float32, read as floor(clip((v - low) / (high - low), 0, 1)
    * 255 + 0.5). `missing`, `corrupt`: what becomes of a chunk that is absent, or that cannot be
    decoded: "fail" and "bridge" raise MissingDataError or CorruptDataError, "fill" reads the format's fill
    value and says so. `nan`: what becomes of a voxel of float32 that is no number: "fail" raises DataError,
    "fill" reads black. `cache_bytes`: how much decoded data is kept for the next read.

    Raises SourceError where there is no volume that can be used.

    Example:

        >>> from vemdiffuse_pipe import Box, open_source
        >>> open_source("isotropic.zarr/em").read(Box((5, 0, 0), (6, 48, 40))).shape
        (1, 48, 40)
    """
    given_nm = exact_nm(voxel_size_nm) if voxel_size_nm is not None else None
    volume = find_volume(source_address(url), series, pattern)
    chosen, reader = _opened(volume, level, _positive(given_nm), cache_bytes, channel)
    spec = _spec(volume, chosen, reader, given_nm)
    grey = to_grey(reader.dtype, window, volume.url, nan)
    return StoredSource(volume, spec, reader, grey, Policies(missing, corrupt), channel)


def _opened(
    volume: Volume, name: str | None, given_nm: Nm | None, cache_bytes: int, channel: int | None = None
) -> tuple[Level, Reader]:
    """The level that is asked for, or the finest that is there, open."""
    first, *coarser = volume.candidates(name, given_nm)
    try:
        return first, first.array.open(cache_bytes, channel)
    except AbsentLevelError:
        for level in coarser:
            with suppress(AbsentLevelError):
                return level, level.array.open(cache_bytes, channel)
        raise


def open_mask(
    url: str | os.PathLike[str],
    *,
    voxel_size_nm: Sequence[float | str] | None = None,
    level: str | None = None,
) -> Source:
    """A volume of any type as a mask: it reads 1 where it is neither 0 nor NaN, else 0. Metadata only.

    A chunk that is absent is 0: who writes labels leaves chunks out that have none. `voxel_size_nm`,
    `level`: as in `open_source`. Raises SourceError where there is no volume.
    """
    given_nm = exact_nm(voxel_size_nm) if voxel_size_nm is not None else None
    volume = find_volume(source_address(url))
    chosen, reader = _opened(volume, level, _positive(given_nm), CACHE_BYTES)
    spec = _spec(volume, chosen, reader, given_nm)
    return StoredSource(volume, spec, reader, _is_set, Policies("fill"), None)


def _is_set(values: NDArray[np.generic]) -> Voxels:
    is_number: NDArray[np.bool_] = np.equal(values, values)  # NaN is not itself
    return np.asarray(np.not_equal(values, 0) & is_number, np.uint8)


_FINDERS = (ngff.find, n5.find, precomputed.find, mrc.find, hdf5.find)


def find_volume(address: Address, series: int | None = None, pattern: str | None = None) -> Volume:
    """The volume that the metadata at `address` describes. Raises SourceError where there is none.

    The address of its metadata file, or of a zip archive that holds it, will do. `series`, `pattern`: as in
    `open_source`.
    """
    for place in _places(archive.entered(address)):
        if (volume := _found_by_metadata(place)) is not None:
            if series is not None or pattern is not None:
                raise SourceError(
                    f"{volume.url} is {volume.format}, which has no series and no pattern; leave it out"
                )
            return volume
        if (volume := tiff.find(place, series, pattern)) is not None:
            return volume
    raise SourceError(f"{address} {_found(address)}; the address of a volume is needed: {_FORMATS}")


def _found_by_metadata(place: Address) -> Volume | None:
    for find in _FINDERS:
        if (volume := find(place)) is not None:
            return volume
    return ngff.find_consolidated(place)


def _places(address: Address) -> Iterator[Address]:
    """Where the volume may be whose address this is."""
    yield address
    if address.name in _METADATA_FILES:
        yield address.parent


class StoredSource:
    """A level of a volume, read as grey levels."""

    def __init__(
        self,
        volume: Volume,
        spec: VolumeSpec,
        reader: Reader,
        grey: ToGrey,
        policies: Policies,
        channel: int | None,
    ) -> None:
        self._volume = volume
        self._policies = policies
        self._channel = channel
        self._spec = spec
        self._reader = reader
        self._grey = grey

    @property
    def spec(self) -> VolumeSpec:
        """What the metadata says."""
        return self._spec

    def read(self, box: Box, on_hole: OnHole = ignore_hole) -> Voxels:
        """The voxels of `box`: uint8, zyx, contiguous. `on_hole` hears of each part that was filled.

        Raises SourceError where `box` is not inside the volume, else DataError or TransientError.
        """
        if not self._spec.frame.box.contains(box):
            raise SourceError(f"box {box} is not inside {self._spec.url}, which has {self._spec.frame.box}")
        if box.is_empty:
            return np.empty(box.shape, np.uint8)
        return self._grey(holes.read(self._reader, box, self._policies, on_hole))

    def strict(self) -> StoredSource:
        """The same level, whose absent and damaged chunks raise, whatever this one does with them."""
        return StoredSource(self._volume, self._spec, self._reader, self._grey, Policies(), self._channel)

    def coarser_levels(self) -> Iterator[StoredSource]:
        """The coarser levels of the volume that are there and have as many sections, the coarsest first.

        An absent chunk raises MissingDataError. What they show is not compared with what this one shows.
        Raises SourceError or TransientError.
        """
        volume = self._volume
        for level in sorted(volume.levels, key=lambda level: prod(level.voxel_size), reverse=True):
            if level.name == self._spec.level:
                return
            try:
                reader = level.array.open(CACHE_BYTES, self._channel)
            except AbsentLevelError:
                continue
            if (reader.shape[0], reader.dtype) == (self._spec.shape[0], self._spec.dtype):
                spec = _spec(volume, level, reader, None)
                yield StoredSource(volume, spec, reader, self._grey, Policies(), self._channel)


def _spec(volume: Volume, level: Level, reader: Reader, given_nm: Nm | None) -> VolumeSpec:
    return VolumeSpec(
        url=volume.url,
        format=volume.format,
        frame=level.frame(reader.shape, given_nm),
        dtype=reader.dtype,
        chunk_shape=reader.chunk_shape,
        shard_shape=reader.shard_shape,
        level=level.name,
        n_levels=len(volume.levels),
    )


def _positive(given_nm: Nm | None) -> Nm | None:
    smallest, largest = metadata.MIN_VOXEL_NM, metadata.MAX_LENGTH_NM
    if given_nm is not None and not smallest <= min(given_nm) <= max(given_nm) <= largest:
        raise SourceError(
            f"voxel size {show_nm(given_nm)} nm; each must be larger than 0 and a length in nanometres"
        )
    return given_nm


def _found(address: Address) -> str:
    if not address.is_local:
        _raise_if_refused(address)
        if address.store.startswith("http") and stores.page_of_absent(address.store) is not None:
            return "is not there: its server answers with a page of HTML where an object is absent"
        return "holds no volume's metadata (neither zarr.json, .zattrs, .zarray, attributes.json nor info)"
    if not address.path.exists():
        return "does not exist"
    if not address.path.is_dir():
        return "is a file in no format that we know"
    return f"is a folder without a volume's metadata (it holds {metadata.contents(address)})"


def _raise_if_refused(address: Address) -> None:
    """Raises SourceError where the store does not let us look: there may be a volume all the same."""
    try:
        objects.read_bytes(address / "zarr.json", 1)
    except AccessError as error:
        raise SourceError(
            f"{error}; the address is wrong, or what is there is not public: "
            f"{stores.where_credentials_go(address)}"
        ) from error
