"""OME-TIFF, of one file or of many: the page of each section and channel, as its XML says."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.storage import metadata, objects, ome_xml
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.ome_xml import OmeDocument, OmeImage, TiffData
from vemdiffuse_pipe.storage.tiff_axes import places_of
from vemdiffuse_pipe.storage.tiff_header import count_pages, is_tiff
from vemdiffuse_pipe.storage.tiff_pages import NOWHERE, Stack, opened

Place = tuple[int, int]  # a file, by its place in a list of names, and a page in it


def read_document(address: Address, description: str) -> OmeDocument:
    """What a file says of itself, or what the file says that it names for that, in the same folder."""
    document = ome_xml.parse(description, str(address))
    if document.elsewhere is None:
        return document
    other = address.parent / _plain_name(document.elsewhere, address)
    if not other.path.is_file():
        raise SourceError(f"{address} has its metadata in {other.name}, which is not there; put it there")
    found = ome_xml.parse(_description(other), str(other))
    return OmeDocument(document.uuid, found.elsewhere, found.images)


def stack_of(address: Address, document: OmeDocument, series: int | None) -> tuple[Stack, OmeImage]:
    """The sections of an image, the one called `series` where there are more, counted from 0.

    Raises SourceError where it is no volume, where it must be chosen, or where pages contradict one another.
    """
    image = _chosen(document.images, address, series)
    axes = image.order[::-1] + "YX"
    of_plane = places_of(axes, [*(image.counts[axis] for axis in axes[:3]), *image.shape], address)[..., 1]
    found = _Planes(address, document.uuid, image)
    places = np.asarray(found.places(), np.int64)[of_plane]
    stack = Stack(address, address.parent, found.files, places, shape=image.shape)
    return stack, image


def _description(address: Address) -> str:
    """The XML of a metadata file, which is an XML file or another TIFF file."""
    if is_tiff(address):
        with opened(address) as file:
            return file.pages.first.description
    data = objects.read_bytes(address, ome_xml.MAX_CHARACTERS + 1) or b""
    return data.decode("utf-8", errors="replace")


def _chosen(images: Sequence[OmeImage], address: Address, series: int | None) -> OmeImage:
    """The image that is asked for, or the only one with sections."""
    volumes = [image for image in images if image.counts["Z"] > 1] if len(images) > 1 else images
    if series is not None and series < len(images):
        return images[series]
    if series is None and len(volumes) == 1:
        return volumes[0]
    listing = metadata.listed([f"{i} {image}" for i, image in enumerate(images[:9])])
    raise SourceError(
        f"{address} has {len(images)} images, or series: {listing or 'none'}; say which one: --series N"
    )


def _plain_name(name: str, address: Address) -> str:
    """The name of a file in the same folder. Raises SourceError for any other: metadata is hostile."""
    if re.fullmatch(r"[^/\\:]+", name) and name.isprintable() and name not in (".", ".."):
        return name
    raise SourceError(f"{address} names the file {name[:80]!r}; only files in its own folder are read")


class _Planes:
    """Where each plane of an image is; `files` are found on the way, the opened one first."""

    def __init__(self, address: Address, uuid: str | None, image: OmeImage) -> None:
        self.files = [address.name]
        self._address = address
        self._uuid = uuid
        self._image = image
        self._is_tiff = is_tiff(address)  # else the metadata is in a file of its own, without pages
        self._indices = {address.name: 0}
        self._n_pages: dict[int, int | None] = {}
        self._old_name = self._name_before()

    def places(self) -> list[Place]:
        """Of each plane in its order; NOWHERE where no TiffData has it."""
        data = self._image.data or [TiffData({}, None, None, None, None)]
        starts = [self._index(block) for block in data]
        ends = [*sorted(set(starts)), self._image.n_planes]
        places: dict[int, Place] = {}
        for block, start in zip(data, starts, strict=True):
            following = ends[bisect_right(ends, start)] if start < ends[-1] else ends[-1]
            for i, place in enumerate(self._pages(block, following - start)):
                self._put(places, start + i, place)
        if len(set(places.values())) < len(places):
            raise SourceError(f"{self._address} states the same page for two planes; its TiffData is wrong")
        return [places.get(i, NOWHERE) for i in range(self._image.n_planes)]

    def _put(self, places: dict[int, Place], plane: int, place: Place) -> None:
        if places.setdefault(plane, place) != place or plane >= self._image.n_planes:
            raise SourceError(
                f"{self._address} states two pages for plane {plane}, or more planes than there are"
            )

    def _index(self, block: TiffData) -> int:
        """The place of its first plane in the order of the image."""
        index, stride = 0, 1
        for axis in self._image.order:
            first, count = block.first.get(axis, 0), self._image.counts[axis]
            if first >= count:
                raise SourceError(f"{self._address} has a plane of {axis} {first}, of {count} from 0")
            index, stride = index + first * stride, stride * count
        return index

    def _pages(self, block: TiffData, n_following: int) -> list[Place]:
        """The pages of a run of planes: where none are counted, all of the file, up to the next run."""
        file = self._file(block)
        n_pages = self._pages_of(file)
        first, n_planes = block.page or 0, block.n_planes
        if n_planes is None and block.page is not None:
            n_planes = 1
        if n_planes is None:
            n_planes = n_following if n_pages is None else min(n_following, n_pages)
            self._check_all(block, n_pages)
        if n_planes > self._image.n_planes or (n_pages is not None and first + n_planes > n_pages):
            raise SourceError(
                f"{self._address} states pages {first} to {first + n_planes - 1} of {self.files[file]}, "
                f"which has {n_pages}: the file was cut off, or its metadata is another file's"
            )
        return [(file, first + i) for i in range(n_planes)]

    def _check_all(self, block: TiffData, n_pages: int | None) -> None:
        """Raises SourceError where one file is to hold all planes and has another number of pages."""
        n_planes = self._image.n_planes
        if len(self._image.data) <= 1 and block.file is None and n_pages != n_planes:
            raise SourceError(
                f"{self._address} has {n_pages} pages, but states {n_planes} planes: {self._image}"
            )

    def _pages_of(self, file: int) -> int | None:
        """Pages of a file; None where it is not there."""
        if file not in self._n_pages:
            address = self._address.parent / self.files[file]
            self._n_pages[file] = count_pages(address) if is_tiff(address) else None
        return self._n_pages[file]

    def _file(self, block: TiffData) -> int:
        """The file of a run of planes: the opened one, whatever its name is now, or another in its folder."""
        is_own = self._is_tiff and block.uuid is not None and block.uuid == self._uuid
        if is_own or (block.file is not None and block.file == self._old_name):
            return 0
        if block.file is None:
            self._check_own(block)
            return 0
        name = _plain_name(block.file, self._address)
        if name not in self._indices:
            self._indices[name] = len(self.files)
            self.files.append(name)
        return self._indices[name]

    def _check_own(self, block: TiffData) -> None:
        """Raises SourceError where planes are in a file without a name that is not the opened one."""
        if not self._is_tiff or (block.uuid is not None and self._uuid not in (None, block.uuid)):
            uuid = (block.uuid or "")[:80]
            raise SourceError(f"{self._address} has planes in a file {uuid} without a name; name it")

    def _name_before(self) -> str | None:
        """The name of the opened file before it was renamed: the only one that is stated, and not there."""
        names = {block.file for block in self._image.data}
        name = names.pop() if len(names) == 1 else None
        if name is None or not self._is_tiff or self._uuid is not None:
            return None
        return None if (self._address.parent / _plain_name(name, self._address)).path.exists() else name
