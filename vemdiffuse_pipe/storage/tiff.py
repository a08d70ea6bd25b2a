"""TIFF stacks: one file with a page for each section, or a folder of numbered files with one page each.

A page is the unit of reading: one is decoded at a time, and the last ones are kept.
"""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import CorruptDataError, MissingDataError, SourceError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.storage import faults, metadata, objects
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.levels import Level, Volume
from vemdiffuse_pipe.storage.tiff_header import count_pages, is_tiff, voxel_size_nm
from vemdiffuse_pipe.storage.tiff_names import in_order

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffFrame, TiffPage

_SUFFIXES = (".tif", ".tiff")
_SECTION_AXES = "ZIQ"  # tifffile's letters for an axis of sections, named or not named

_SILENT = logging.NullHandler()

Page = NDArray[np.generic]


def find(address: Address) -> Volume | None:
    """The stack at `address`; None where there is none. Raises SourceError."""
    if not address.is_local:
        return None
    if address.path.is_dir():
        names = [name for name in objects.list_names(address) if name.lower().endswith(_SUFFIXES)]
        return _numbered_files(address, names) if names else None
    return _stack(address) if is_tiff(address) else None


def _stack(address: Address) -> Volume:
    array = StackFile(address, count_pages(address))
    with faults.opening(str(address)), _opened(address) as file:
        level = _level(file, array)
    return Volume(str(address), "tiff", [level])


def _numbered_files(address: Address, names: Sequence[str]) -> Volume:
    files = in_order(address, names)
    if len(files) < 2:
        raise SourceError(
            f"{address} holds one TIFF file; give the address of a stack, or a folder of sections"
        )
    first = address / min(names)
    if count_pages(first) != 1:
        raise SourceError(f"{first} has more than one page; give its address, or a folder of single sections")
    with faults.opening(str(first)), _opened(first) as file:
        level = _level(file, NumberedFiles(address, files))
    return Volume(str(address), "tiff", [level])


def _level(file: TiffFile, array: StackFile | NumberedFiles) -> Level:
    size = voxel_size_nm(file)
    return Level("0", array) if size is None else Level("0", array, size, is_in_nm=True)


@dataclass(frozen=True, slots=True)
class PageKind:
    """What all pages of a stack have in common: their shape, yx, and numpy's name of their type."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class StackFile:
    """A file with a page for each section."""

    address: Address
    n_pages: int

    def open(self, cache_bytes: int = 0, channel: int | None = None) -> PageReader:
        """The stack; the file stays open as long as the reader lives."""
        _check_channel(self.address, channel)
        with faults.opening(str(self.address)), ExitStack() as until_handed_over:
            file = until_handed_over.enter_context(_opened(self.address))
            n_sections = _n_sections(file, self.n_pages, self.address)
            kind = _kind(file.pages.first, self.address)
            lock = Lock()  # tifffile is not to be used by two threads at once

            def section(z: int) -> Page:
                with lock:
                    return _section(file, z, kind)

            codec = _codec(file.pages.first)
            reader = PageReader(section, n_sections, kind, codec, str(self.address), cache_bytes)
            weakref.finalize(reader, file.close)
            until_handed_over.pop_all()
        return reader


@dataclass(frozen=True, slots=True)
class NumberedFiles:
    """A folder with a file for each section; None where the numbers leave one out."""

    address: Address
    files: Sequence[str | None]

    def open(self, cache_bytes: int = 0, channel: int | None = None) -> PageReader:
        """The stack: its first file says what every other one must be like."""
        _check_channel(self.address, channel)
        first = self.address / next(name for name in self.files if name is not None)
        with faults.opening(str(first)), _opened(first) as file:
            kind, codec = _kind(file.pages.first, first), _codec(file.pages.first)

        def section(z: int) -> Page:
            name = self.files[z]
            if name is None:
                raise MissingDataError(f"section {z} of {self.address}: its number is not among the files")
            with _opened(self.address / name) as file:
                if (n_pages := len(file.pages)) != 1:
                    raise CorruptDataError(f"{self.address / name} has {n_pages} pages; one is needed")
                return _decoded(file, file.pages.first, kind)

        return PageReader(section, len(self.files), kind, codec, str(self.address), cache_bytes)


class PageReader:
    """Sections that are decoded one at a time by `section`; `cache_bytes` of them are kept, at least one."""

    def __init__(
        self,
        section: Callable[[int], Page],
        n_sections: int,
        kind: PageKind,
        codec: str,
        what: str,
        cache_bytes: int,
    ) -> None:
        y, x = kind.shape
        page_bytes = y * x * np.dtype(kind.dtype).itemsize
        if page_bytes > metadata.MAX_OBJECT:
            raise SourceError(f"{what} has pages of {kind.shape} {kind.dtype}; at most 4 GiB can be decoded")
        self._section = lru_cache(maxsize=max(1, cache_bytes // page_bytes))(section)
        self._what = what
        self.shape: Zyx = (n_sections, y, x)
        self.dtype = kind.dtype
        self.codec = codec

    @property
    def chunk_shape(self) -> Zyx:
        """A page."""
        return 1, self.shape[1], self.shape[2]

    @property
    def shard_shape(self) -> Zyx:
        """A page."""
        return self.chunk_shape

    @property
    def fill_value(self) -> int:
        """Black."""
        return 0

    def read(self, box: Box) -> Page:
        """The voxels of `box`, zyx."""
        voxels = np.empty(box.shape, self.dtype)
        _, rows, columns = box.slices
        for i, z in enumerate(range(box.start[0], box.stop[0])):
            with faults.reading(f"section {z} of {self._what}"):
                voxels[i] = self._section(z)[rows, columns]
        return voxels


def _check_channel(address: Address, channel: int | None) -> None:
    if channel not in (None, 0):
        raise SourceError(f"{address} has one channel, number 0; found channel {channel}: leave it out")


def _opened(address: Address) -> TiffFile:
    from tifffile import TiffFile

    logging.getLogger("tifffile").addHandler(_SILENT)  # what matters of it is raised
    return TiffFile(address.path, is_ome=False)  # as OME it may name other files, anywhere


def _kind(page: TiffPage | TiffFrame, what: Address | str) -> PageKind:
    if len(page.shape) != 2 or page.dtype is None:
        raise SourceError(f"{what} has a page of shape {page.shape}; a grey one needs two axes: y, x")
    return PageKind(page.shape, page.dtype.name)


def _codec(page: TiffPage | TiffFrame) -> str:
    name = str(getattr(page.compression, "name", page.compression)).lower()
    return "raw" if name == "none" else name


def _n_sections(file: TiffFile, n_pages: int, address: Address) -> int:
    if len(file.series) != 1:
        raise SourceError(f"{address} has {len(file.series)} kinds of pages; a stack needs one size and type")
    series = file.series[0]
    axes = [(axis, n) for axis, n in zip(series.axes, series.shape, strict=True) if n > 1 or axis in "YX"]
    letters = "".join(axis for axis, _ in axes)
    if letters == "YX":
        raise SourceError(f"{address} has one page: it is 2D; a volume needs sections along z")
    if letters[1:] != "YX" or letters[0] not in _SECTION_AXES:
        raise SourceError(
            f"{address} has axes {series.axes} of {series.shape}; a stack of grey pages is needed"
        )
    if series.dataoffset is None and n_pages != axes[0][1]:
        raise SourceError(f"{address} has {n_pages} pages, but states {axes[0][1]} sections")
    return axes[0][1]


def _section(file: TiffFile, z: int, kind: PageKind) -> Page:
    """Section `z`: its page, or its part of the one run of numbers that ImageJ writes for all of them."""
    series = file.series[0]
    if series.dataoffset is None:
        return _decoded(file, file.pages.get(z, aspage=True), kind)
    stored = np.dtype(kind.dtype).newbyteorder(file.byteorder)
    n_voxels = math.prod(kind.shape)
    start = series.dataoffset + z * n_voxels * stored.itemsize
    return file.filehandle.read_array(stored, n_voxels, start).reshape(kind.shape)


def _decoded(file: TiffFile, page: TiffPage | TiffFrame, kind: PageKind) -> Page:
    """The page's voxels, none of them made up: tifffile takes absent and short segments for black."""
    what = f"page {page.index} of {file.filename}"
    if _kind(page, what) != kind:
        raise CorruptDataError(f"{what} is {page.shape} {page.dtype}, but the first page is {kind}")
    where = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if any(count == 0 for _, count in where):
        raise MissingDataError(f"{what} has a part that is not stored")
    if any(offset + count > file.filehandle.size for offset, count in where):
        raise CorruptDataError(f"{what} lies beyond the end of the file")
    return page.asarray()
