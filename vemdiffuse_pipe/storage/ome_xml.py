"""OME-XML: the images that a set of TIFF files holds, and on which page of which file each plane lies.

<Pixels DimensionOrder="XYCZT" SizeC="2" SizeZ="7" ...>       planes are counted c first, then z, then t
  <TiffData FirstZ="4" IFD="0" PlaneCount="3">                 three planes, from (c 0, z 4) on, that are
    <UUID FileName="part_2.ome.tif">urn:uuid:...</UUID>        pages 0, 1 and 2 of that file
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from xml.etree import ElementTree

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.geometry.frame import Nm
from vemdiffuse_pipe.storage import metadata
from vemdiffuse_pipe.storage.tiff_header import MAX_PAGES
from vemdiffuse_pipe.storage.tiff_size import length_nm

MAX_CHARACTERS = 64 << 20

# Symbols of OME that are no words of metadata.unit_nm, or that mean another unit there: Mm is no mm.
_OME_UNITS_NM = {
    "fm": Fraction(1, 10**6),
    "am": Fraction(1, 10**9),
    "dm": Fraction(10**8),
    "km": Fraction(10**12),
    "in": Fraction(25_400_000),
    "thou": Fraction(25_400),
    "li": Fraction(2_116_667),
    "ft": Fraction(304_800_000),
}
_OTHER_UNITS = {
    "Ym",
    "Zm",
    "Em",
    "Pm",
    "Tm",
    "Gm",
    "Mm",
    "hm",
    "dam",
    "zm",
    "ym",
    "pt",
    "pc",
    "M",
    "NM",
    "MM",
}

_OME_TAG = re.compile(r"<([\w.-]+:)?OME[\s/>]")


@dataclass(frozen=True, slots=True)
class TiffData:
    """A run of planes: the first one, (z, c, t), its page, how many; `file`: None where not named."""

    first: Mapping[str, int]
    page: int | None
    n_planes: int | None
    file: str | None
    uuid: str | None


@dataclass(frozen=True, slots=True)
class OmeImage:
    """An image: `order` of its axes after x and y, fastest first, `counts` of z, c and t, and `shape`, yx."""

    name: str
    order: str
    counts: Mapping[str, int]
    shape: tuple[int, int]
    size_nm: Nm | None
    data: Sequence[TiffData]

    @property
    def n_planes(self) -> int:
        """Pages that it needs."""
        return prod(self.counts.values())

    def __str__(self) -> str:
        counts = ", ".join(f"{n} {axis}" for axis, n in self.counts.items())
        return f"{self.name!r} ({counts}, {self.shape[0]} x {self.shape[1]} pixels)"


@dataclass(frozen=True, slots=True)
class OmeDocument:
    """What OME-XML says. `elsewhere`: the name of the file with the metadata, where it is not this one."""

    uuid: str | None
    elsewhere: str | None
    images: Sequence[OmeImage]


def is_ome(text: str) -> bool:
    """True where a description is OME-XML, well formed or not."""
    return text.lstrip("\ufeff \t\r\n").startswith("<") and _OME_TAG.search(text) is not None


def parse(text: str, where: str) -> OmeDocument:
    """The document. Raises SourceError where it is no OME-XML, or says what cannot be."""
    root = _root(text, where)
    if _tag(root) != "OME":
        raise SourceError(f"{where} is XML whose root is {_tag(root)}; OME was expected")
    binary_only = _children(root, "BinaryOnly")
    elsewhere = binary_only[0].get("MetadataFile") if binary_only else None
    images = [
        _image(image, pixels, f"{where}, image {i}")
        for i, image in enumerate(_children(root, "Image"))
        for pixels in _children(image, "Pixels")[:1]
    ]
    return OmeDocument(root.get("UUID"), elsewhere, images)


def unit_nm(symbol: str) -> Fraction | None:
    """Nanometres in a unit of OME, by its symbol or in words; None where it is no length that we know."""
    plain = symbol.strip()
    if plain in _OTHER_UNITS:
        return None
    return _OME_UNITS_NM.get(plain) or metadata.unit_nm(plain)


def _root(text: str, where: str) -> ElementTree.Element:
    if len(text) > MAX_CHARACTERS:
        raise SourceError(
            f"{where} has OME-XML of {len(text) >> 20} MB; at most {MAX_CHARACTERS >> 20} are read"
        )
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities that grow: OME has none
        raise SourceError(f"{where} has OME-XML with a document type; OME-XML has none")
    try:
        return ElementTree.fromstring(text.strip("\ufeff\0 \t\r\n"))  # noqa: S314 (no entities, a bounded length)
    except (ElementTree.ParseError, ValueError) as error:
        raise SourceError(f"{where} has OME-XML that is not well formed: {error}") from None


def _tag(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _children(element: ElementTree.Element, tag: str) -> list[ElementTree.Element]:
    return [child for child in element if _tag(child) == tag]


def _image(image: ElementTree.Element, pixels: ElementTree.Element, where: str) -> OmeImage:
    order = pixels.get("DimensionOrder", "")
    if sorted(order) != sorted("XYZCT") or order[:2] != "XY":
        raise SourceError(f"{where} has the DimensionOrder {order!r}; XY and then Z, C and T are needed")
    counts = {axis: _count(pixels, f"Size{axis}", where) for axis in "ZCT"}
    if prod(counts.values()) > MAX_PAGES:
        raise SourceError(f"{where} has {prod(counts.values())} planes; at most {MAX_PAGES} are read")
    samples = [_number(channel, "SamplesPerPixel", where) or 1 for channel in _children(pixels, "Channel")]
    if max(samples, default=1) > 1:
        raise SourceError(
            f"{where} has channels of {max(samples)} samples a pixel: colours (RGB); save it as grey"
        )
    shape = _count(pixels, "SizeY", where), _count(pixels, "SizeX", where)
    z, y, x = (_length(pixels, axis) for axis in "ZYX")
    size = None if z is None or y is None or x is None else (z, y, x)
    data = [_tiff_data(element, where) for element in _children(pixels, "TiffData")]
    return OmeImage(image.get("Name") or image.get("ID") or "", order[2:], counts, shape, size, data)


def _length(pixels: ElementTree.Element, axis: str) -> Fraction | None:
    unit = unit_nm(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    return length_nm(pixels.get(f"PhysicalSize{axis}", ""), unit)


def _tiff_data(element: ElementTree.Element, where: str) -> TiffData:
    first = {axis: _number(element, f"First{axis}", where) or 0 for axis in "ZCT"}
    uuid = next(iter(_children(element, "UUID")), None)
    n_planes = _number(element, "PlaneCount", where)
    return TiffData(
        first,
        _number(element, "IFD", where),
        _number(element, "NumPlanes", where) if n_planes is None else n_planes,
        None if uuid is None else uuid.get("FileName"),
        None if uuid is None else (uuid.text or "").strip() or None,
    )


def _count(element: ElementTree.Element, key: str, where: str) -> int:
    value = _number(element, key, where)
    if not value:
        raise SourceError(f"{where} has {key} {element.get(key)!r}; a count of at least 1 is needed")
    return value


def _number(element: ElementTree.Element, key: str, where: str) -> int | None:
    text = element.get(key)
    if text is None:
        return None
    if re.fullmatch(r"\s*\d{1,12}\s*", text) is None:
        raise SourceError(f"{where} has {key} {text[:80]!r}; a whole number from 0 is needed")
    return int(text)
