"""How real numbers become grey levels: once, for the whole house."""

from __future__ import annotations

from math import isfinite

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import DataError

HALF_AND_A_BIT = 0.5 + 2.0**-10
UNCERTAINTY_STEP = 0.25  # grey levels of deviation per stored level


def to_grey(values: NDArray[np.floating], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Finite grey levels as uint8: floor(v + 0.5 + 2**-10), clipped to 0..255; any shape. `out`: where to.

    Ties, and what lies within 2**-10 below one, go up: float32 and float64 arithmetic, whose last bits
    differ, then give the same level for linear interpolation, where exact ties are common.
    Raises DataError for NaN and infinity, which are no grey level.
    """
    out = np.empty(values.shape, np.uint8) if out is None else out
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if not (low >= 0 and high <= 255):
        check_finite(low, high)
        values = np.clip(values, 0, 255)  # interpolation has no need of it, and it costs more than the rest
    np.add(values, np.asarray(HALF_AND_A_BIT, values.dtype), out=out, casting="unsafe")
    return out


def check_finite(low: float, high: float) -> None:
    """Raises DataError unless the lowest and the highest of some grey levels are numbers."""
    if not (isfinite(low) and isfinite(high)):
        raise DataError(f"grey levels from {low} to {high} are not finite numbers; is the model damaged?")
