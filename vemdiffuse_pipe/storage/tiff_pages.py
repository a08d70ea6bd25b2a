"""Sections that are pages of TIFF files: which page of which file each is, and how one is decoded."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import CorruptDataError, MissingDataError, SourceError
from vemdiffuse_pipe.storage import faults
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.pages import Page, PageKind, PageReader, checked_channel
from vemdiffuse_pipe.storage.section_names import Numbering
from vemdiffuse_pipe.storage.tiff_grey import as_shown

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffFrame, TiffPage

MAX_IDLE = 4  # files that stay open for the next read

_SILENT = logging.NullHandler()

Places = NDArray[np.int64]
NOWHERE = (-1, -1)


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """The sections of one image.

    `files`: in the folder `folder`. `places`: (channels, sections, 2), the file of each section, by its place
    in `files`, and the page in it; NOWHERE where there is none. `run`: where in the only file the one run of
    numbers begins that ImageJ writes for all pages. `is_signed`: 2^15 is to be taken from what is stored.
    `shape`: yx, where the metadata states it. `numbering`: where each file is a section.
    """

    address: Address
    folder: Address
    files: Sequence[str]
    places: Places
    run: int | None = None
    is_signed: bool = False
    shape: tuple[int, int] | None = None
    numbering: Numbering | None = None

    def open(self, cache_bytes: int = 0, channel: int | None = None) -> PageReader:
        """The sections of one channel; what the first one is like, all others must be."""
        places = self.places[checked_channel(self.address, channel, len(self.places))]
        files = OpenFiles(self.folder, self.files, 0 if self.numbering else MAX_IDLE)
        with ExitStack() as until_handed_over:
            until_handed_over.callback(files.close)
            kind, codec = self._like_the_first(files, places)

            def section(z: int) -> Page:
                stored = self._stored(files, places, z, kind)
                return _with_sign(stored) if self.is_signed else stored

            shown = PageKind(kind.shape, "int16") if self.is_signed else kind
            reader = PageReader(
                section, len(places), shown, codec, "tifffile", str(self.address), cache_bytes
            )
            weakref.finalize(reader, files.close)
            until_handed_over.pop_all()
        return reader

    def _like_the_first(self, files: OpenFiles, places: Places) -> tuple[PageKind, str]:
        """Kind and codec of the first section that is there."""
        index, number = self._first_page(places)
        with faults.opening(str(self.address)), files.use(index) as file:
            page = file.pages.get(number, aspage=True)
            kind, codec = kind_of(page, self.address), codec_of(page)
            as_shown(page, self.address)
        self._check(kind)
        return kind, codec

    def _first_page(self, places: Places) -> tuple[int, int]:
        """File and page of the first section that is there."""
        for file, page in dict.fromkeys((int(f), int(p)) for f, p in places):
            if file >= 0 and (self.folder / self.files[file]).path.exists():
                return file, page
        raise SourceError(f"none of the files with sections of {self.address} is there")

    def _check(self, kind: PageKind) -> None:
        if self.shape not in (None, kind.shape):
            raise SourceError(f"{self.address} states images of {self.shape} pixels, yx; found {kind.shape}")
        if self.is_signed and kind.dtype != "uint16":
            raise SourceError(f"{self.address} states 16 bits with a sign; found {kind.dtype}")

    def _stored(self, files: OpenFiles, places: Places, z: int, kind: PageKind) -> Page:
        index, page = (int(n) for n in places[z])
        if index < 0:
            raise MissingDataError(f"{self._name(z)} of {self.address} is absent: no file has it")
        try:
            with files.use(index) as file:
                return self._page(file, page, kind)
        except FileNotFoundError:
            name = self.files[index]
            raise MissingDataError(
                f"{self._name(z)} of {self.address} is in {name}, which is not there"
            ) from None

    def _page(self, file: TiffFile, page: int, kind: PageKind) -> Page:
        if self.run is not None:
            return _part_of_run(file, self.run, page, kind)
        if self.numbering and (n_pages := len(file.pages)) != 1:
            raise CorruptDataError(f"{file.filename} has {n_pages} pages; one is needed")
        return decoded(file, file.pages.get(page, aspage=True), kind)

    def _name(self, z: int) -> str:
        return self.numbering.name_of(z) if self.numbering else f"section {z}"


class OpenFiles:
    """TIFF files of a folder; each is used by one thread at a time, at most `max_idle` wait for the next."""

    def __init__(self, folder: Address, names: Sequence[str], max_idle: int) -> None:
        self._folder = folder
        self._names = names
        self._max_idle = max_idle
        self._idle: list[tuple[int, TiffFile]] = []
        self._lock = Lock()

    @contextmanager
    def use(self, index: int) -> Iterator[TiffFile]:
        """The file `index` of the names, open."""
        file = self._idle_one(index) or opened(self._folder / self._names[index])
        try:
            yield file
        finally:
            with self._lock:
                self._idle.append((index, file))
                surplus = self._idle[: -self._max_idle or None]
                del self._idle[: len(surplus)]
            for _, other in surplus:
                other.close()

    def close(self) -> None:
        """Close the files that wait."""
        with self._lock:
            for _, file in self._idle:
                file.close()
            self._idle.clear()

    def _idle_one(self, index: int) -> TiffFile | None:
        with self._lock:
            for i, (of, file) in enumerate(self._idle):
                if of == index:
                    del self._idle[i]
                    return file
        return None


def opened(address: Address) -> TiffFile:
    """The file, its metadata read: other files that OME metadata names are left alone."""
    from tifffile import TiffFile

    logging.getLogger("tifffile").addHandler(_SILENT)  # what matters of it is raised
    return TiffFile(address.path, is_ome=False)


def kind_of(page: TiffPage | TiffFrame, what: object) -> PageKind:
    """Shape and type of a grey page. Raises SourceError for any other."""
    if len(page.shape) != 2 or page.dtype is None:
        raise SourceError(
            f"{what} has pages of shape {page.shape}, such as colours (RGB); grey ones need two axes, y and "
            "x: save it as grey"
        )
    return PageKind(page.shape, page.dtype.name)


def codec_of(page: TiffPage | TiffFrame) -> str:
    """How the page is encoded, in a word."""
    name = str(getattr(page.compression, "name", page.compression)).lower()
    return "raw" if name == "none" else name


def decoded(file: TiffFile, page: TiffPage | TiffFrame, kind: PageKind) -> Page:
    """The grey values of a page, none of them made up: tifffile takes absent and short segments for black."""
    what = f"page {page.index} of {file.filename}"
    try:
        found, shown = kind_of(page, what), as_shown(page, what)
    except SourceError as error:
        raise CorruptDataError(str(error)) from error
    if found != kind:
        raise CorruptDataError(f"{what} is {page.shape} {page.dtype}, but the first page is {kind}")
    where = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if any(count == 0 for _, count in where):
        raise MissingDataError(f"{what} has a part that is not stored")
    if any(offset + count > file.filehandle.size for offset, count in where):
        raise CorruptDataError(f"{what} lies beyond the end of the file")
    return shown(page.asarray())


def _with_sign(stored: Page) -> Page:
    """Unsigned 16-bit numbers less 2^15."""
    return (stored.astype(np.uint16, copy=False) ^ np.uint16(1 << 15)).view(np.int16)


def _part_of_run(file: TiffFile, start: int, page: int, kind: PageKind) -> Page:
    """A page of the one run of numbers that ImageJ writes for all of them."""
    stored = np.dtype(kind.dtype).newbyteorder(file.byteorder)
    n_voxels = math.prod(kind.shape)
    voxels = file.filehandle.read_array(stored, n_voxels, start + page * n_voxels * stored.itemsize)
    first = file.pages.first
    return as_shown(first, file.filename)(voxels.reshape(kind.shape).astype(kind.dtype, copy=False))
