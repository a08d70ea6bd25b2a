"""What a TIFF file says about itself before a page is decoded: how many pages, and how large a voxel is."""

from __future__ import annotations

import re
import struct
from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.geometry.frame import Nm
from vemdiffuse_pipe.storage import faults, metadata, objects
from vemdiffuse_pipe.storage.address import Address

if TYPE_CHECKING:
    from tifffile import TiffFile

_MAX_PAGES = 1 << 20

# byte order, then (first page's position, count of tags, bytes of a tag, position of the next page)
_CLASSIC = ("I", "H", 12)
_BIG = ("Q", "Q", 20)
_KINDS = {
    b"II*\0": ("<", _CLASSIC),
    b"MM\0*": (">", _CLASSIC),
    b"II+\0": ("<", _BIG),
    b"MM\0+": (">", _BIG),
}


def is_tiff(address: Address) -> bool:
    """True where there is a file that begins as a TIFF does."""
    return address.path.is_file() and objects.read_bytes(address, 4) in _KINDS


def count_pages(address: Address) -> int:
    """Pages of the file, by following the chain from one to the next to its very end.

    Raises SourceError where the chain leaves the file or turns back: the file was cut off, and the pages
    that are left would be a shorter stack that looks whole.
    """
    with faults.opening(str(address)), address.path.open("rb") as file:
        order, (position, count, tag_bytes) = _KINDS.get(file.read(4), ("", _CLASSIC))
        if not order:
            raise SourceError(f"{address} is no TIFF file")
        file.seek(8 if position == "Q" else 4)
        seen: set[int] = set()
        while (page := _number(file, order + position, address)) != 0:
            if page in seen or len(seen) >= _MAX_PAGES:
                raise SourceError(f"{address} has a chain of pages without an end; the file is damaged")
            seen.add(page)
            file.seek(page)
            file.seek(tag_bytes * _number(file, order + count, address), 1)
        return len(seen)


def voxel_size_nm(file: TiffFile) -> Nm | None:
    """Voxel size, zyx, in ImageJ or OME metadata; None unless it is stated for all axes, with a unit."""
    ome = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", file.pages.first.description or "")
    if ome is not None:
        return _ome_size(ome[0])
    return _imagej_size(file) if file.is_imagej else None


def _number(file: BinaryIO, layout: str, address: Address) -> int:
    data = file.read(struct.calcsize(layout))
    if len(data) < struct.calcsize(layout):
        raise SourceError(f"{address} ends before its last page; the file was cut off")
    return int(struct.unpack(layout, data)[0])


def _ome_size(pixels: str) -> Nm | None:
    z, y, x = (_ome_length(pixels, axis) for axis in "ZYX")
    return None if z is None or y is None or x is None else (z, y, x)


def _ome_length(pixels: str, axis: str) -> Fraction | None:
    size = re.search(rf'\bPhysicalSize{axis}="([^"]*)"', pixels)
    unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]*)"', pixels)
    nm = metadata.unit_nm(unit[1] if unit else "µm")
    return _length(size[1], nm) if size and nm is not None else None


def _imagej_size(file: TiffFile) -> Nm | None:
    stated = file.imagej_metadata or {}
    nm = metadata.unit_nm(str(stated.get("unit", "")).replace("\\u00B5", "µ"))
    z = _length(str(stated.get("spacing", "")), nm) if nm is not None else None
    y, x = (_pixel_size(file, f"{axis}Resolution", nm) for axis in "YX")
    return None if z is None or y is None or x is None else (z, y, x)


def _length(number: str, unit_nm: Fraction | None) -> Fraction | None:
    try:
        size = metadata.number(float(number), "voxel size") * (unit_nm or 1)
    except (ValueError, SourceError):
        return None
    return size if size >= metadata.MIN_VOXEL_NM else None


def _pixel_size(file: TiffFile, tag: str, unit_nm: Fraction | None) -> Fraction | None:
    """Length of a pixel: the shortest decimal within 1e-5, since 1 / 4.6 pixels a nm are stored rounded."""
    found = file.pages.first.tags.valueof(tag)
    if unit_nm is None or not isinstance(found, tuple) or len(found) != 2 or min(found) < 1:
        return None
    size = Fraction(found[1], found[0])
    decimals = (Fraction(f"{float(size):.{digits}g}") for digits in range(1, 9))
    return next((d for d in decimals if abs(d - size) <= size / 100_000), size) * unit_nm
