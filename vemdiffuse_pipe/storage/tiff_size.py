"""The voxel size that ImageJ wrote into a TIFF file: a number and a unit for each axis."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.geometry.frame import Nm
from vemdiffuse_pipe.storage import metadata

if TYPE_CHECKING:
    from tifffile import TiffFile


def imagej_size_nm(file: TiffFile) -> Nm | None:
    """Voxel size, zyx; None unless it is stated for all axes, each with a unit of length.

    `unit` is that of x and of every axis without a unit of its own: yunit, zunit.
    """
    stated = (file.imagej_metadata or {}) if file.is_imagej else {}
    units = [_unit_nm(stated.get(f"{axis}unit", stated.get("unit"))) for axis in "zyx"]
    z = length_nm(str(stated.get("spacing", "")), units[0])
    y, x = (_pixel_nm(file, f"{axis}Resolution", nm) for axis, nm in zip("YX", units[1:], strict=True))
    return None if z is None or y is None or x is None else (z, y, x)


def length_nm(number: str, unit_nm: Fraction | None) -> Fraction | None:
    """The length in nm; None where it is no number larger than 0, or where the unit is not known."""
    try:
        size = metadata.number(float(number), "voxel size") * (unit_nm or 0)
    except (ValueError, SourceError):
        return None
    return size if metadata.MIN_VOXEL_NM <= size <= metadata.MAX_LENGTH_NM else None


def shortest(size: Fraction, tolerance: Fraction) -> Fraction:
    """The shortest decimal that is as close, relatively: 4.6 for what was stored as 1 / 0.217391."""
    decimals = (Fraction(f"{float(size):.{digits}g}") for digits in range(1, 9))
    return next((d for d in decimals if abs(d - size) <= size * tolerance), size)


def _unit_nm(unit: object) -> Fraction | None:
    """Nanometres in a unit; Java writes letters that are not in its alphabet as their numbers."""
    written = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), str(unit))
    return metadata.unit_nm(written.strip("\"' "))


def _pixel_nm(file: TiffFile, tag: str, unit_nm: Fraction | None) -> Fraction | None:
    """Length of a pixel: the shortest decimal within 1e-5, since 1 / 4.6 pixels a nm are stored rounded."""
    found = file.pages.first.tags.valueof(tag)
    if unit_nm is None or not isinstance(found, tuple) or len(found) != 2 or min(found) < 1:
        return None
    return shortest(Fraction(found[1], found[0]), Fraction(1, 10**5)) * unit_nm
