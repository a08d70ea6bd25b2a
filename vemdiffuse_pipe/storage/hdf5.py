"""HDF5: one dataset of a file is a volume. Its address is that of the file, and its path in it.

sample_A.hdf/volumes/raw      the dataset volumes/raw
sample_A.hdf                  the only one with three axes of grey values, else refused with a list

A chunk that was never written is missing, not 0. Links to other files are not followed.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import MissingDataError, SourceError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.storage import faults, hdf5_layout, metadata, objects
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.hdf5_layout import Layout
from vemdiffuse_pipe.storage.levels import ORIGIN, UNIT_VOXEL, Level, Volume
from vemdiffuse_pipe.storage.pages import checked_channel

if TYPE_CHECKING:
    import h5py

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_BEGINNINGS = (0, 512, 1024, 2048)  # what MATLAB and others put before it
_GREY = ("uint8", "int8", "uint16", "int16", "float16", "float32")
_BIGDATAVIEWER = re.compile(r"t\d+/s\d+/\d+/cells")  # writes unsigned numbers as signed ones
_MAX_LISTED = 1000  # objects of a file that are looked at
_MAX_LINKS = 16
_CACHE_SLOTS = 10_007


def find(address: Address) -> Volume | None:
    """The volume at `address`; None where no HDF5 file is there. Raises SourceError."""
    file = _file_of(address)
    if file is None:
        return None
    inner = address.key[len(file.key) :].strip("/")
    with _opened(file) as opened:
        path = inner or _only_volume(opened, file)
        dataset = _dataset(opened, path, file)
        layout = hdf5_layout.layout_of(dataset, f"{file}/{path}")
        _check(dataset, f"{file}/{path}")
    array = Hdf5Dataset(file, path, layout)
    size, corner = layout.size_nm or UNIT_VOXEL, layout.corner_nm or ORIGIN
    return Volume(str(file / path), "hdf5", [Level("0", array, size, corner, layout.size_nm is not None)])


@dataclass(frozen=True, slots=True)
class Hdf5Dataset:
    """A dataset of a file, by its path."""

    file: Address
    path: str
    layout: Layout

    def open(self, cache_bytes: int = 0, channel: int | None = None) -> Hdf5Reader:
        """The dataset; the file stays open as long as the reader lives."""
        import h5py

        number = checked_channel(self.file / self.path, channel, self.layout.n_channels)
        with faults.opening(str(self.file)):
            file = h5py.File(self.file.path, locking=False, rdcc_nbytes=cache_bytes, rdcc_nslots=_CACHE_SLOTS)
            reader = Hdf5Reader(
                _dataset(file, self.path, self.file), self.layout, number, str(self.file / self.path)
            )
        weakref.finalize(reader, file.close)
        return reader


class Hdf5Reader:
    """An open dataset, read as zyx: axes in their order, one channel."""

    read_by = "h5py"
    fill_value = 0

    def __init__(self, dataset: h5py.Dataset, layout: Layout, channel: int, what: str) -> None:
        self._dataset = dataset
        self._layout = layout
        self._channel = channel
        self._what = what
        self._view = _unsigned(dataset, what)
        self.shape: Zyx = layout.zyx(dataset.shape)
        self.dtype = self._view.name
        pages = 1, self.shape[1], self.shape[2]
        self.chunk_shape: Zyx = layout.zyx(dataset.chunks) if dataset.chunks else pages
        self.shard_shape: Zyx = self.chunk_shape
        self.codec = str(dataset.compression or ("raw" if not _filters(dataset) else _filters(dataset)[0]))

    def read(self, box: Box) -> NDArray[np.generic]:
        """The voxels of `box`, zyx. Raises MissingDataError where a chunk of it was never written."""
        with faults.reading(f"{box} of {self._what}"):
            self._check_written(box)
            stored = self._dataset[self._layout.stored(box, self._channel)]
            native = stored.astype(stored.dtype.newbyteorder("="), copy=False)
            return self._layout.to_zyx(native).view(self._view)

    def _check_written(self, box: Box) -> None:
        identifier = self._dataset.id
        if identifier.get_storage_size() == 0:
            raise MissingDataError(f"{self._what} was made, and never written")
        if self._dataset.chunks is None:
            return
        grid = BlockGrid(self.shape, self.chunk_shape)
        for chunk in grid.touching(box):
            corner = self._layout.stored_index(grid.box(chunk).start, self._channel)
            if identifier.get_chunk_info_by_coord(corner).byte_offset is None:
                raise MissingDataError(f"chunk {grid.box(chunk)} of {self._what} was never written")


def _file_of(address: Address) -> Address | None:
    """The HDF5 file that is at the address, or that the address goes into."""
    if not address.is_local:
        return None
    file = address
    while not file.path.exists() and file.parent != file:
        file = file.parent
    if not file.path.is_file():
        return None
    data = objects.read_bytes(file, _BEGINNINGS[-1] + len(_SIGNATURE)) or b""
    return file if any(data[at : at + len(_SIGNATURE)] == _SIGNATURE for at in _BEGINNINGS) else None


@contextmanager
def _opened(file: Address) -> Iterator[h5py.File]:
    import h5py

    with faults.opening(str(file)), h5py.File(file.path, locking=False) as opened:
        yield opened


def _dataset(file: h5py.File, path: str, address: Address) -> h5py.Dataset:
    """The dataset at a path. Raises SourceError where it is none, or lies in another file."""
    import h5py

    found = _followed(file, path, address, _MAX_LINKS)
    if not isinstance(found, h5py.Dataset):
        raise SourceError(f"{address}/{path} is no dataset; {_listing(file, address)}")
    return found


def _followed(file: h5py.File, path: str, address: Address, n_links: int) -> object:
    """What is at a path; links within the file are followed, links to other files are refused."""
    import h5py

    group: object = file
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for i, part in enumerate(parts):
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        if isinstance(link, h5py.ExternalLink):
            raise SourceError(
                f"{address}/{path} is a link to another file, which is not followed; give its address"
            )
        if isinstance(link, h5py.SoftLink):
            if n_links == 0:
                raise SourceError(f"{address}/{path} is a link that leads on and on; give another address")
            target = link.path if link.path.startswith("/") else "/".join([*parts[:i], link.path])
            return _followed(file, "/".join([target, *parts[i + 1 :]]), address, n_links - 1)
        if link is None or not isinstance(group, h5py.Group):
            raise SourceError(f"{address} has no {path}; {_listing(file, address)}")
        group = group[part]
    return group


def _only_volume(file: h5py.File, address: Address) -> str:
    paths = [path for path, dataset in _datasets(file) if dataset.ndim >= 3 and dataset.dtype.name in _GREY]
    if len(paths) != 1:
        raise SourceError(f"{address}: give the address of one of its datasets; {_listing(file, address)}")
    return paths[0]


def _listing(file: h5py.File, address: Address) -> str:
    names = [f"{path} {dataset.shape} {dataset.dtype.name}" for path, dataset in _datasets(file)]
    return f"{address.name} holds {metadata.listed(names[:9]) or 'no dataset'}"


def _datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Datasets and their paths, as far as they lie in the file itself."""
    import h5py

    waiting: list[tuple[str, h5py.Group]] = [("", file)]
    n_seen = 0
    while waiting:
        prefix, group = waiting.pop(0)
        for name in group:
            n_seen += 1
            if n_seen > _MAX_LISTED:
                return
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            found = group[name]
            if isinstance(found, h5py.Dataset):
                yield f"{prefix}{name}", found
            elif isinstance(found, h5py.Group):
                waiting.append((f"{prefix}{name}/", found))


def _check(dataset: h5py.Dataset, what: str) -> None:
    """Raises SourceError where its voxels are not in the file, or cannot be decoded here."""
    import h5py

    if dataset.is_virtual or dataset.external:
        raise SourceError(
            f"{what} has its voxels in other files, which are not followed; copy them into one file"
        )
    absent = [name for name, code in _filter_codes(dataset) if not h5py.h5z.filter_avail(code)]
    if absent:
        raise SourceError(
            f"{what} is packed by the HDF5 filter {absent[0]}, which is not installed; put its plugin where "
            "HDF5_PLUGIN_PATH says, or write the dataset with gzip: h5repack -f GZIP=1"
        )
    chunk_bytes = int(np.prod(dataset.chunks or (1,), dtype=object)) * dataset.dtype.itemsize
    if chunk_bytes > metadata.MAX_CHUNK:
        raise SourceError(
            f"{what} has chunks of {dataset.chunks}; at most {metadata.MAX_CHUNK >> 20} MB are decoded"
        )


def _filter_codes(dataset: h5py.Dataset) -> Sequence[tuple[str, int]]:
    properties = dataset.id.get_create_plist()
    found = [properties.get_filter(i) for i in range(properties.get_nfilters())]
    return [(bytes(name).decode(errors="replace") or str(code), int(code)) for code, _, _, name in found]


def _filters(dataset: h5py.Dataset) -> list[str]:
    return [name for name, _ in _filter_codes(dataset)]


def _unsigned(dataset: h5py.Dataset, what: str) -> np.dtype[np.generic]:
    """The type of its numbers, without the sign where the writer meant none."""
    native = dataset.dtype.newbyteorder("=")
    return np.dtype("uint16") if native == np.int16 and _BIGDATAVIEWER.search(what) else native
