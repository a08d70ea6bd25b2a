"""What the values of a TIFF page look like: the grey that is shown is not always the number that is stored.

MINISBLACK    the number; of 2 or 4 bits, stretched to 0 to 255
MINISWHITE    the largest number less it
PALETTE       the grey at its place in the palette, where the palette is grey
all others    refused by name: colours, masks, sensors
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.storage.pages import Page

if TYPE_CHECKING:
    from tifffile import TiffFrame, TiffPage

ToShown = Callable[[Page], Page]

_PHOTOMETRIC = 262  # the tag
_MINISWHITE, _MINISBLACK, _PALETTE = 0, 1, 3
_FULL = {2: 85, 4: 17, 8: 1}  # bits: how far apart the greys are


def as_shown(page: TiffPage | TiffFrame, what: object) -> ToShown:
    """The function from stored numbers to the grey values that they show, in the same type.

    Raises SourceError, naming the tag, for what is no grey image.
    """
    photometric = page.tags.valueof(_PHOTOMETRIC, _MINISBLACK)  # type: ignore[union-attr]
    bits, dtype = page.bitspersample, str(page.dtype)  # type: ignore[union-attr]
    if photometric == _PALETTE:
        return _of_palette(page, what)
    if photometric not in (_MINISWHITE, _MINISBLACK):
        name = getattr(photometric, "name", photometric)
        raise SourceError(f"{what} is no grey image: its photometric tag (262) is {name}; save it as grey")
    is_unsigned = dtype in ("uint8", "uint16")
    if photometric == _MINISWHITE and not is_unsigned:
        raise SourceError(
            f"{what} is {dtype} and MINISWHITE (tag 262: white is zero), which says what to subtract from of "
            "unsigned integers only; save it as MINISBLACK"
        )
    step = _FULL.get(bits) if dtype == "uint8" else 1
    if step is None:
        raise SourceError(f"{what} has {bits} bits a pixel; 2, 4, 8 or 16 are needed")
    if photometric == _MINISBLACK:
        return (lambda page: page) if step == 1 else lambda page: np.multiply(page, step, dtype=page.dtype)
    white = np.array(2**bits - 1, dtype)
    return lambda page: np.multiply(np.subtract(white, page), np.array(step, dtype))


def _of_palette(page: TiffPage | TiffFrame, what: object) -> ToShown:
    palette = page.colormap  # type: ignore[union-attr]
    if palette is None or page.dtype != np.uint8 or (palette != palette[:1]).any():
        raise SourceError(
            f"{what} shows its numbers through a palette of colours (tags 262 and 320); a grey palette of 8 "
            "bits can be read: save it as grey"
        )
    shift = 8 if palette.max() > 255 else 0  # 16 bits, as the standard says, or 8, as some programs write
    greys = (palette[0] >> shift).astype(np.uint8)
    return lambda page: np.take(greys, page.astype(np.uint8, copy=False))
