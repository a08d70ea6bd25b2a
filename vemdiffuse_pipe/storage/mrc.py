"""MRC volumes (.mrc, .rec, .st, .map): a header of 1024 bytes or more, then section after section.

type of mode 0    int8 by MRC2014; uint8 where IMOD says so, or where the header's largest value is above 127
voxel size        cell / grid, in angstrom; 1 angstrom along every axis is what programs write who know none
corner            the header's origin, in angstrom; 0 for IMOD's files, whose sign of it varies
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import isfinite, prod
from typing import Literal

import numpy as np

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.geometry.frame import Nm
from vemdiffuse_pipe.storage import metadata, objects
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.levels import ORIGIN, UNIT_VOXEL, Level, Volume
from vemdiffuse_pipe.storage.pages import Page, PageKind, PageReader, checked_channel
from vemdiffuse_pipe.storage.tiff_size import shortest

Header = np.void
Order = Literal["<", ">"]

HEADER_BYTES = 1024

_ORDERS: tuple[Order, Order] = ("<", ">")
_SUFFIXES = (".mrc", ".mrcs", ".rec", ".st", ".ali", ".preali", ".map", ".ccp4")
_PACKED = (".gz", ".bz2", ".xz")
_MODES = {0: "int8", 1: "int16", 2: "float32", 6: "uint16", 12: "float16"}
_OTHER_MODES = {3: "complex integers", 4: "complex numbers", 16: "colours (RGB)", 101: "4 bits a voxel"}
_NM = Fraction(1, 10)  # an angstrom
_IMOD_STAMP = 1146047817
_SIGNED_BYTES, _HALF_BYTES = 1, 16  # bits of IMOD's flags
_STACK_OF_VOLUMES = 401  # and above, by the space group


def find(address: Address) -> Volume | None:
    """The volume at `address`; None where there is none. Raises SourceError."""
    if not address.is_local or not address.path.is_file():
        return None
    is_named = address.name.lower().endswith(_SUFFIXES)
    data = objects.read_bytes(address, HEADER_BYTES) or b""
    if not is_named and data[208:211] != b"MAP":
        _refuse_packed(address)
        return None
    if len(data) < HEADER_BYTES:
        raise SourceError(f"{address} ends within its header of {HEADER_BYTES} bytes; the file was cut off")
    header, order = _header(data, address)
    array = MrcFile(address, *_layout(header, order, address))
    size = _size_nm(header)
    corner = ORIGIN if size is None else _corner_nm(header)
    return Volume(str(address), "mrc", [Level("0", array, size or UNIT_VOXEL, corner, size is not None)])


@dataclass(frozen=True, slots=True)
class MrcFile:
    """Sections that follow one another: `shape`, zyx, of `stored` numbers, the first one at byte `start`."""

    address: Address
    shape: tuple[int, int, int]
    stored: str
    start: int

    def open(self, cache_bytes: int = 0, channel: int | None = None) -> PageReader:
        """The volume; nothing stays open between two reads."""
        checked_channel(self.address, channel, 1)
        stored = np.dtype(self.stored)
        n_voxels = prod(self.shape[1:])

        def section(z: int) -> Page:
            with self.address.path.open("rb") as file:
                file.seek(self.start + z * n_voxels * stored.itemsize)
                data = file.read(n_voxels * stored.itemsize)
            return np.frombuffer(data, stored).reshape(self.shape[1:]).astype(stored.name, copy=False)

        kind = PageKind(self.shape[1:], stored.name)
        return PageReader(section, self.shape[0], kind, "raw", "mrcfile", str(self.address), cache_bytes)


def _header(data: bytes, address: Address) -> tuple[Header, Order]:
    """The header and its order of bytes: the one of smaller numbers, as the stamp of it is often wrong."""
    from mrcfile.dtypes import HEADER_DTYPE

    found: list[tuple[int, Order, Header]] = []
    for order in _ORDERS:
        header: Header = np.frombuffer(data, HEADER_DTYPE.newbyteorder(order))[0]
        sides = [int(header[n]) for n in ("nx", "ny", "nz")]
        if int(header["mode"]) in _MODES | _OTHER_MODES and min(sides) > 0:
            found.append((prod(sides), order, header))
    if not found:
        raise SourceError(
            f"{address} has no header of MRC: neither order of bytes gives a shape and one of the modes "
            f"{', '.join(map(str, _MODES))}"
        )
    _, order, header = min(found, key=lambda candidate: candidate[0])
    return header, order


def _layout(header: Header, order: Order, address: Address) -> tuple[tuple[int, int, int], str, int]:
    """Shape, stored type and first byte, each checked against the file's length."""
    mode = int(header["mode"])
    if mode not in _MODES or (mode == 0 and _imod_flags(header) & _HALF_BYTES):
        what = _OTHER_MODES.get(mode, "4 bits a voxel")
        raise SourceError(
            f"{address} has {what} (mode {mode}); modes {', '.join(map(str, _MODES))} can be read"
        )
    axes = tuple(int(header[key]) for key in ("mapc", "mapr", "maps"))
    if axes not in ((1, 2, 3), (0, 0, 0)):
        raise SourceError(
            f"{address} stores its axes in the order {axes} (mapc, mapr, maps); columns, rows and "
            "sections along x, y and z (1, 2, 3) are needed"
        )
    x, y, z = (int(header[key]) for key in ("nx", "ny", "nz"))
    if z < 2:
        raise SourceError(f"{address} has one section: it is 2D; a volume needs sections along z")
    if int(header["ispg"]) >= _STACK_OF_VOLUMES and 0 < int(header["mz"]) < z:
        raise SourceError(f"{address} holds {z // int(header['mz'])} volumes; a file with one is needed")
    dtype = np.dtype(_byte_type(header) if mode == 0 else _MODES[mode]).newbyteorder(order)
    start = HEADER_BYTES + int(header["nsymbt"])
    needed, found = start + x * y * z * dtype.itemsize, address.path.stat().st_size
    if start < HEADER_BYTES or needed > found:
        raise SourceError(
            f"{address} states {z} x {y} x {x} voxels of {dtype.name} from byte {start} on, which end at "
            f"byte {needed}; it has {found} bytes: the file was cut off, or its header is another file's"
        )
    return (z, y, x), dtype.str, start


def _byte_type(header: Header) -> str:
    """Type of mode 0, whose sign is nowhere stated but by IMOD."""
    if _has_imod_stamp(header):
        return "int8" if _imod_flags(header) & _SIGNED_BYTES else "uint8"
    return "uint8" if float(header["dmax"]) > 127 and float(header["dmin"]) >= 0 else "int8"


def _has_imod_stamp(header: Header) -> bool:
    return _imod_numbers(header)[0] == _IMOD_STAMP


def _imod_flags(header: Header) -> int:
    stamp, flags = _imod_numbers(header)
    return flags if stamp == _IMOD_STAMP else 0


def _imod_numbers(header: Header) -> tuple[int, int]:
    """IMOD's stamp and flags, bytes 152 to 159, which are 40 bytes into what MRC leaves free."""
    order = header.dtype["nx"].byteorder
    stamp, flags = np.frombuffer(bytes(header["extra2"])[40:48], np.dtype("i4").newbyteorder(order))
    return int(stamp), int(flags)


def _size_nm(header: Header) -> Nm | None:
    """Voxel size, zyx; None where none is stated, or where the angstrom of a program that knows none is."""
    cells = [float(header["cella"][axis]) for axis in "zyx"]
    grid = [int(header[f"m{axis}"]) for axis in "zyx"]
    if not all(map(isfinite, cells)) or min(cells) <= 0 or min(grid) < 1:
        return None
    sizes = [shortest(Fraction(c) / m, Fraction(1, 10**6)) * _NM for c, m in zip(cells, grid, strict=True)]
    is_length = all(metadata.MIN_VOXEL_NM <= size <= metadata.MAX_LENGTH_NM for size in sizes)
    z, y, x = sizes
    return (z, y, x) if is_length and sizes != [_NM] * 3 else None


def _corner_nm(header: Header) -> Nm:
    origin = [float(header["origin"][axis]) for axis in "zyx"]
    if _has_imod_stamp(header) or not all(isfinite(o) and abs(o) < metadata.MAX_LENGTH_NM for o in origin):
        return ORIGIN
    z, y, x = (Fraction(f"{o:.7g}") * _NM for o in origin)  # float32 has seven digits
    return z, y, x


def _refuse_packed(address: Address) -> None:
    """Raises SourceError where a name says that an MRC file was packed."""
    stem, dot, ending = address.name.lower().rpartition(".")
    if f"{dot}{ending}" in _PACKED and stem.endswith(_SUFFIXES):
        raise SourceError(
            f"{address} is packed as a whole, so that no part of it can be read; unpack it first"
        )
