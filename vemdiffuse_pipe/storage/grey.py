"""Stored numbers to grey levels: uint8 as it is, uint16 and float32 through a stated window."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import DataError, SourceError
from vemdiffuse_pipe.volume import Voxels

Window = tuple[float, float]
ToGrey = Callable[[NDArray[np.generic]], Voxels]


def to_grey(dtype: str, window: Window | None, url: str) -> ToGrey:
    """The function that turns stored voxels into uint8.

    uint8 stays what it is. uint16 and float32 need `window` = (low, high), and v becomes
    floor(clip((v - low) / (high - low), 0, 1) * 255 + 0.5): halves round up. A NaN raises DataError when it
    is read. Raises SourceError for other types, and for a window that is missing, empty or not wanted.
    """
    if dtype == "uint8":
        return _as_it_is(window, url)
    if dtype not in ("uint16", "float32"):
        raise SourceError(
            f"{url} stores {dtype}; uint8 is needed, or uint16 or float32 with a window of grey values"
        )
    low, high = _checked(dtype, window, url)
    if dtype == "float32":
        return lambda values: _windowed(values, low, high, url)
    table = _windowed(np.arange(1 << 16, dtype=np.uint16), low, high, url)
    return lambda values: np.take(table, values)  # type: ignore[arg-type]


def _as_it_is(window: Window | None, url: str) -> ToGrey:
    if window is not None:
        raise SourceError(f"{url} stores uint8, which is read as it is; leave the window {window} out")
    return lambda values: np.ascontiguousarray(values, dtype=np.uint8)


def _checked(dtype: str, window: Window | None, url: str) -> Window:
    if window is None:
        raise SourceError(f"{url} stores {dtype}; say which values are black and white: --window LOW HIGH")
    low, high = window
    if not (low < high and isfinite(high - low)):
        raise SourceError(
            f"window {low} {high}; two finite numbers are needed, the lower one first, and a finite width"
        )
    return low, high


def _windowed(values: NDArray[np.generic], low: float, high: float, url: str) -> Voxels:
    grey = np.empty(values.shape, np.uint8)
    for plane, out in zip(
        np.atleast_2d(values), np.atleast_2d(grey), strict=True
    ):  # float64: one plane at a time
        with np.errstate(over="ignore"):  # of a window that is all but empty: infinity is white, or black
            scaled = (plane.astype(np.float64) - low) / (high - low)
        if np.isnan(scaled).any():
            raise DataError(f"{url} holds NaN, which is no grey level")
        out[...] = np.clip(scaled, 0, 1) * 255 + 0.5
    return grey
