"""Stored numbers to grey levels: uint8 as it is, other types through a stated window."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.config import NanPolicy
from vemdiffuse_pipe.errors import DataError, SourceError
from vemdiffuse_pipe.volume import Voxels

Window = tuple[float, float]
_INTEGERS = {"int8": "uint8", "int16": "uint16", "uint16": "uint16"}
_FLOATS = ("float16", "float32")

ToGrey = Callable[[NDArray[np.generic]], Voxels]


def to_grey(dtype: str, window: Window | None, url: str, nan: NanPolicy = "fail") -> ToGrey:
    """The function that turns stored voxels into uint8.

    uint8 stays what it is. int8, int16, uint16, float16 and float32 need `window` = (low, high), and v is
    floor(clip((v - low) / (high - low), 0, 1) * 255 + 0.5): halves round up. A NaN raises DataError when it
    is read, or with `nan` = "fill" is black. Raises SourceError for other types, and for a window that is
    missing, empty or not wanted.
    """
    if dtype == "uint8":
        return _as_it_is(window, url)
    if dtype not in (*_INTEGERS, *_FLOATS):
        raise SourceError(
            f"{url} stores {dtype}; uint8 is needed, or one of {', '.join([*_INTEGERS, *_FLOATS])} with a "
            "window of grey values"
        )
    low, high = _checked(dtype, window, url)
    if dtype in _FLOATS:
        return lambda values: _windowed(values, low, high, url, nan)
    index = _INTEGERS[dtype]  # the same bits without a sign
    every_value = np.arange(np.iinfo(index).max + 1).astype(index).view(dtype)
    table = _windowed(every_value, low, high, url)
    return lambda values: np.take(table, values.view(index))


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


def _windowed(
    values: NDArray[np.generic], low: float, high: float, url: str, nan: NanPolicy = "fail"
) -> Voxels:
    grey = np.empty(values.shape, np.uint8)
    for plane, out in zip(
        np.atleast_2d(values), np.atleast_2d(grey), strict=True
    ):  # float64: one plane at a time
        with np.errstate(over="ignore"):  # of a window that is all but empty: infinity is white, or black
            scaled = (plane.astype(np.float64) - low) / (high - low)
        is_nan = np.isnan(scaled)
        if is_nan.any():
            if nan == "fail":
                raise DataError(
                    f"{url} holds NaN, which is no grey level; give nan as fill to read it as black"
                )
            scaled[is_nan] = 0
        out[...] = np.clip(scaled, 0, 1) * 255 + 0.5
    return grey
