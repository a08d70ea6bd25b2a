"""Interpolation of a whole volume at once: the reference that every reconstruction is compared with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vemdiffuse_pipe.errors import ConfigError


def interpolate(sections: NDArray[np.generic], r: int, order: int) -> NDArray[np.float64]:
    """The planes of a volume by spline interpolation along z: ((M - 1) * r + 1, y, x) float64.

    `sections`: (M, y, x), M >= 2, any real dtype. Plane u * r + j lies at u + j / r; planes u * r are the
    sections, unchanged. `order`: 1 linear, 3 cubic spline. Beyond the first and last section the volume is
    mirrored. Raises ConfigError for other orders, r < 1 or fewer than two sections.
    """
    _check(sections, r, order)
    n, y, x = sections.shape
    planes: NDArray[np.float64] = ndimage.affine_transform(
        sections.astype(np.float64),
        np.array([1 / r, 1, 1]),
        output_shape=((n - 1) * r + 1, y, x),
        order=order,
        mode="mirror",
    )
    planes[::r] = sections
    return planes


def _check(sections: NDArray[np.generic], r: int, order: int) -> None:
    if sections.ndim != 3 or len(sections) < 2:
        raise ConfigError(
            f"found sections of shape {sections.shape}; interpolation needs (z, y, x) with 2 sections or more"
        )
    if r < 1:
        raise ConfigError(f"anisotropy ratio r = {r}; a whole number of 1 or more is needed")
    if order not in (1, 3):
        raise ConfigError(f"interpolation of order {order}; choose 1 (linear) or 3 (cubic spline)")
