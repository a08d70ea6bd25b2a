"""How a TIFF file begins, and how many pages follow one another in it."""

from __future__ import annotations

import struct
from typing import BinaryIO

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.storage import faults, objects
from vemdiffuse_pipe.storage.address import Address

MAX_PAGES = 1 << 20

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
            if page in seen or len(seen) >= MAX_PAGES:
                raise SourceError(f"{address} has a chain of pages without an end; the file is damaged")
            seen.add(page)
            file.seek(page)
            file.seek(tag_bytes * _number(file, order + count, address), 1)
        return len(seen)


def _number(file: BinaryIO, layout: str, address: Address) -> int:
    data = file.read(struct.calcsize(layout))
    if len(data) < struct.calcsize(layout):
        raise SourceError(f"{address} ends before its last page; the file was cut off")
    return int(struct.unpack(layout, data)[0])
