"""How real numbers become grey levels: once, for the whole house."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HALF_AND_A_BIT = 0.5 + 2.0**-10
UNCERTAINTY_STEP = 0.25  # grey levels of deviation per stored level


def to_grey(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Finite grey levels as uint8: floor(v + 0.5 + 2**-10), clipped to 0..255; any shape.

    Ties, and what lies within 2**-10 below one, go up: float32 and float64 arithmetic, whose last bits
    differ, then give the same level for linear interpolation, where exact ties are common.
    """
    levels: NDArray[np.floating] = values + np.asarray(HALF_AND_A_BIT, values.dtype)
    return np.clip(levels, 0, 255, out=levels).astype(np.uint8)


def uncertainty_to_grey(deviations: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Standard deviations, in grey levels, as stored: a quarter of a grey level a step, at most 63.75."""
    return to_grey(deviations / np.asarray(UNCERTAINTY_STEP, deviations.dtype))
