"""GMSD: how unevenly an image is distorted; the deviation of its gradient similarity.

Xue, Zhang, Mou & Bovik, IEEE Trans. Image Process. 23:684, 2014. Images are in grey levels, 0..255.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float32]

CONSTANT = 170.0
PREWITT = np.array([[1, 0, -1], [1, 0, -1], [1, 0, -1]], np.float32) / 3


def gmsd(prediction: Image, truth: Image, rows: NDArray[np.bool_]) -> float:
    """Gradient magnitude similarity deviation over `rows`: 0 for equal images. Xue et al. 2014, Eqs. 4 and 6.

    `prediction`, `truth`: (y, x) grey levels 0..255, float32. The method halves the image first; a halved
    row counts when one of its two rows is in `rows`, (y,).
    """
    a, b = _gradient(_halved(prediction)), _gradient(_halved(truth))
    similarity = (2 * a * b + CONSTANT) / (np.square(a) + np.square(b) + CONSTANT)
    n = len(similarity)
    return float(similarity[rows[0 : 2 * n : 2] | rows[1 : 2 * n : 2]].std(dtype=np.float64))


def _halved(image: Image) -> Image:
    """Means of 2 x 2 pixels; an odd last row or column is left out."""
    y, x = image.shape[0] // 2, image.shape[1] // 2
    means: Image = image[: 2 * y, : 2 * x].reshape(y, 2, x, 2).mean(axis=(1, 3))
    return means


def _gradient(image: Image) -> Image:
    """Prewitt gradient magnitude; black outside the image, as in the paper's convolution."""
    across = ndimage.convolve(image, PREWITT, mode="constant")
    down = ndimage.convolve(image, PREWITT.T, mode="constant")
    magnitude: Image = np.hypot(across, down)
    return magnitude
