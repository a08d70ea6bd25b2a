"""Which pages of a TIFF file are sections and which are channels, by the axes that tifffile finds.

ImageJ, ZCYX of (7, 2, 52, 41)       page:  0      1      2      3           sections 0, 1, ... of channel 1
                                            z0 c0  z0 c1  z1 c0  z1 c1       are pages 1, 3, ...
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.metadata import listed
from vemdiffuse_pipe.storage.tiff_pages import Places, Stack

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries

_SECTION_AXES = "ZIQ"  # tifffile's letters for an axis of sections, named or not named
_NAMES = {"Z": "sections", "I": "pages", "Q": "pages", "C": "channels", "T": "frames (time points)"}


def stack_of(file: TiffFile, n_pages: int, address: Address, series: int | None) -> Stack:
    """The sections of a file that is no OME-TIFF; `series`: which image, where there are more.

    Raises SourceError where it is no volume, or where its axes are not certain.
    """
    image = _chosen(file.series, address, series)
    places = places_of(image.axes, image.shape, address)
    n_planes = places[..., 1].size
    run = image.dataoffset
    if run is None and len(file.series) > 1:
        pages = [page.index for page in image.pages if page is not None]
        if len(pages) != n_planes:
            raise SourceError(f"{address} has {len(pages)} pages in series {series}, but states {n_planes}")
        places[..., 1] = np.asarray(pages)[places[..., 1]]
    elif run is None and n_pages != n_planes:
        raise SourceError(f"{address} has {n_pages} pages, but states {n_planes} sections and channels")
    return Stack(address, address.parent, [address.name], places, run, _is_signed(file, address))


def places_of(axes: str, shape: Sequence[int], address: Address) -> Places:
    """The page of each channel and section, (channels, sections, 2), of file 0.

    `axes`: letters, slowest first, that end with YX; in that order pages are counted.
    Raises SourceError unless one axis is of sections and the others are of channels or of length 1.
    """
    counts = dict(zip(axes, shape, strict=True))
    planes = [(axis, n) for axis, n in zip(axes, shape, strict=True) if axis not in "YXS"]
    long = [axis for axis, n in planes if n > 1]
    if counts.get("S", 1) > 1:
        raise SourceError(f"{address} has axes {axes} of {tuple(shape)}: colours (RGB); save it as grey")
    if not long:
        raise SourceError(f"{address} has one page: it is 2D; a volume needs sections along z")
    sections = [axis for axis in long if axis in _SECTION_AXES]
    others = [axis for axis in long if axis not in _SECTION_AXES and axis != "C"]
    if len(sections) != 1 or others or long.count("C") > 1:
        raise SourceError(f"{address} {_refusal(planes)}")
    strides = {axis: math.prod(n for _, n in planes[i + 1 :]) for i, (axis, n) in enumerate(planes) if n > 1}
    n_sections, n_channels = counts_of(planes, sections[0]), counts_of(planes, "C")
    pages = (
        np.arange(n_channels)[:, None] * strides.get("C", 0) + np.arange(n_sections) * strides[sections[0]]
    )
    return np.stack([np.zeros_like(pages), pages], axis=-1)


def counts_of(planes: Sequence[tuple[str, int]], axis: str) -> int:
    """The length of an axis, 1 where there is none."""
    return max((n for letter, n in planes if letter == axis), default=1)


def _refusal(planes: Sequence[tuple[str, int]]) -> str:
    """What the axes are, and what to do, in words."""
    said = " and ".join(f"{n} {_NAMES.get(axis, f'along an axis {axis}')}" for axis, n in planes if n > 1)
    letters = [axis for axis, n in planes if n > 1]
    if letters in (["T"], ["C"]):
        n = counts_of(planes, letters[0])
        field = "Frames (t)" if letters == ["T"] else "Channels (c)"
        return (
            f"has {said} and one slice; sections are needed: if they are meant, say so in Fiji, "
            f"Image > Properties, with {field} 1 and Slices (z) {n}, and save it"
        )
    return (
        f"has {said}; sections along one axis are needed, and channels at most: save one time point or part "
        "of it as a stack of slices"
    )


def _chosen(found: Sequence[TiffPageSeries], address: Address, series: int | None) -> TiffPageSeries:
    if series is not None and series < len(found):
        return found[series]
    if series is not None or len(found) != 1:
        kinds = [f"{i}: {s.axes} {s.shape} {s.dtype}" for i, s in enumerate(found[:9])]
        raise SourceError(
            f"{address} has {len(found)} kinds of pages ({listed(kinds)}); a stack needs one size and type: "
            f"say which one, --series 0 to {len(found) - 1}"
        )
    return found[0]


def _is_signed(file: TiffFile, address: Address) -> bool:
    """True where ImageJ stored 16-bit numbers with a sign, which it does as unsigned ones with a calibration.

    Raises SourceError for any other calibration of 16 bits: what a window is to mean is not certain.
    """
    stated = (file.imagej_metadata or {}) if file.is_imagej else {}
    page = file.pages.first
    if "c0" not in stated or page.dtype != np.uint16:
        return False
    line = (stated.get("cf", 0), stated.get("c0"), stated.get("c1", 1))
    if line == (0, -(1 << 15), 1):
        return True
    if line == (0, 0, 1):
        return False
    raise SourceError(
        f"{address} states a calibration of its grey values (cf, c0, c1 = {line}), so that what is stored is "
        "not what is shown; remove it in Fiji, Analyze > Calibrate > None, and save it"
    )
