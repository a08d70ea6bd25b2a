"""Metadata is hostile until it is checked: every number, name and size of it passes through here.

Each check returns the value in our types or raises SourceError: where, what was found, what is needed.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
import zlib
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from heapq import nsmallest
from typing import NoReturn

from vemdiffuse_pipe.errors import AccessError, CorruptDataError, DataError, SourceError
from vemdiffuse_pipe.storage import codecs, objects
from vemdiffuse_pipe.storage.address import Address

DOUBTS = 3  # times that what came over a network is read again before it is believed to be damaged

MAX_DOCUMENT = 16 << 20  # bytes of JSON
MAX_OBJECT = 4 << 30  # bytes of a shard or of a page
MAX_CHUNK = 512 << 20  # bytes that are decoded at once
MAX_SIDE = 1 << 40  # voxels
MAX_VOLUME = 1 << 62  # voxels
MAX_RANK = 8
MAX_PATH = 1000
MAX_LENGTH_NM = 10**18
MIN_VOXEL_NM = Fraction(1, 10**6)
MAX_LEVELS = 64

_WORDS = {"true": "true", "false": "false"}
_TEXT_OR_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|-?\b[A-Za-z_][\w.#]*')

_UNITS_NM = {
    Fraction(1, 1000): "picometer picometre pm",
    Fraction(1, 10): "angstrom å a",
    Fraction(1): "nanometer nanometre nanometers nm",
    Fraction(10**3): "micrometer micrometre micrometers micron microns um µm μm",
    Fraction(10**6): "millimeter millimetre mm",
    Fraction(10**7): "centimeter centimetre cm",
    Fraction(10**9): "meter metre m",
}
_NM = {name: nm for nm, names in _UNITS_NM.items() for name in names.split()}


def read_document(address: Address) -> dict[str, object] | None:
    """The JSON object at `address`, None where there is none. At most 16 MB are read.

    Stored as gzip it is read too, whether or not its name or its server says so; so is a word that JSON does
    not have (NaN, Infinity, undefined, True), as null where Python has no better value.

    What came over a network and is not JSON is asked for again before it is believed.
    """
    for _ in range(0 if address.is_local else DOUBTS):
        with suppress(SourceError):
            return _document(address)
    return _document(address)


def _document(address: Address) -> dict[str, object] | None:
    try:
        data = objects.read_bytes(address, MAX_DOCUMENT + 1)
    except AccessError as error:
        if address.is_local:
            raise SourceError(str(error)) from error
        return None  # a bucket that may not be listed says "forbidden" of what is not there
    except DataError as error:
        raise SourceError(str(error)) from error
    if data is None:
        return None
    if data[:2] == codecs.GZIP:
        data = _unpacked(data, address)
    if len(data) > MAX_DOCUMENT:
        raise SourceError(f"{address} is larger than {MAX_DOCUMENT >> 20} MB; metadata is a few kilobytes")
    return mapping(_parsed(data, address), str(address))


def _unpacked(data: bytes, address: Address) -> bytes:
    try:
        return codecs.gunzip(data, MAX_DOCUMENT + 1, cut=True)
    except (CorruptDataError, zlib.error) as error:
        raise SourceError(f"{address} begins as gzip does and is none: {error}; it is torn") from error


def _parsed(data: bytes, address: Address) -> object:
    try:
        try:
            return json.loads(data)
        except json.JSONDecodeError:
            return json.loads(_TEXT_OR_WORD.sub(_word_of_json, data.decode("utf-8-sig")))
    except RecursionError:
        raise SourceError(f"{address} is nested too deeply to be metadata") from None
    except ValueError as error:
        raise SourceError(f"{address} is not JSON: {error}; metadata is torn or not a volume's") from None


def _word_of_json(found: re.Match[str]) -> str:
    """Text as it is; a bare word as JSON has it, or as null."""
    return found[0] if found[0].startswith('"') else _WORDS.get(found[0].lower(), "null")


def mapping(value: object, where: str) -> dict[str, object]:
    """A JSON object."""
    return value if isinstance(value, dict) else _refuse(where, value, "an object in {}")


def items(value: object, where: str, at_most: int = MAX_LEVELS) -> list[object]:
    """A JSON list of 1 to `at_most` items."""
    if isinstance(value, list) and 0 < len(value) <= at_most:
        return value
    return _refuse(where, value, f"a list of 1 to {at_most} items")


def text(value: object, where: str) -> str:
    """A string."""
    return value if isinstance(value, str) else _refuse(where, value, "text in quotes")


def integers(value: object, where: str, rank: int | None = None) -> tuple[int, ...]:
    """Whole numbers between -2^40 and 2^40, however they are written; `rank` of them where given."""
    found = items(value, where, MAX_RANK)
    if rank not in (None, len(found)):
        _refuse(where, value, f"{rank} integers")
    return tuple(_side(n, where) for n in found)


def shape(value: object, where: str, rank: int | None = None) -> tuple[int, ...]:
    """Counts of voxels: each 1 to 2^40, all of them below 2^62."""
    counts = integers(value, where, rank)
    if min(counts) < 1 or math.prod(counts) >= MAX_VOLUME:
        _refuse(where, value, "sizes of at least 1, and fewer than 2^62 voxels")
    return counts


def chunk_shape(value: object, where: str, rank: int, at_most: int = MAX_CHUNK) -> tuple[int, ...]:
    """Counts of voxels that make `at_most` bytes of the smallest type."""
    counts = shape(value, where, rank)
    if math.prod(counts) > at_most:
        _refuse(where, value, f"chunks of at most {at_most >> 20} MB")
    return counts


def lengths(value: object, where: str, rank: int) -> tuple[Fraction, ...]:
    """`rank` finite numbers, exact as they are written."""
    found = items(value, where, MAX_RANK)
    if len(found) != rank:
        _refuse(where, value, f"{rank} numbers")
    return tuple(number(n, where) for n in found)


def sizes(value: object, where: str, rank: int) -> tuple[Fraction, ...]:
    """`rank` numbers larger than 0."""
    found = lengths(value, where, rank)
    return found if min(found) >= MIN_VOXEL_NM else _refuse(where, value, "sizes larger than 0")


def number(value: object, where: str) -> Fraction:
    """A finite number of at most 10^18, exact as it is written."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_LENGTH_NM:
        return Fraction(str(value))
    return _refuse(where, value, "a finite number of at most 10^18")


def inner_path(value: object, where: str) -> str:
    """A path that stays inside its container: relative, without `..` and without a scheme.

    What means the same comes out the same: ./a//b/ is a/b.
    """
    path = text(value, where)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    is_plain = path.isprintable() and re.search(r"[\\|]|://", path) is None
    if not is_plain or path.startswith("/") or ".." in parts or not parts or len(path) > MAX_PATH:
        _refuse(where, value, "a relative path inside the volume")
    return "/".join(parts)


def fraction(value: object, where: str) -> Fraction:
    """A fraction that we wrote: '50/11'."""
    written = text(value, where)
    if re.fullmatch(r"-?\d{1,40}(/[1-9]\d{0,39})?", written) is None:
        _refuse(where, value, "a fraction of two whole numbers")
    return Fraction(written)


def unit_nm(unit: object) -> Fraction | None:
    """Nanometres in one `unit`; None where it is absent or no length that we know."""
    return _NM.get(unit.strip().lower()) if isinstance(unit, str) else None


def contents(folder: Address) -> str:
    """What a folder holds, for messages: 'a, b, c and more'."""
    if not folder.is_local:
        return "what cannot be listed from here"
    return listed(nsmallest(9, objects.list_names(folder))) or "nothing"


def listed(names: Sequence[str]) -> str:
    """'a, b, c and more', for messages: at most eight, none of them long."""
    shown = [name if len(name) < 80 and name.isprintable() else repr(name[:80]) for name in names[:8]]
    return ", ".join(shown) + (" and more" if len(names) > 8 else "")


def _side(value: object, where: str) -> int:
    side = int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(side, int) and not isinstance(side, bool) and abs(side) <= MAX_SIDE:
        return side
    return _refuse(where, value, "an integer of at most 2^40")


def _refuse(where: str, found: object, needed: str) -> NoReturn:
    raise SourceError(f"{where}: found {reprlib.repr(found)}; needed {needed}")
