"""PSNR and SSIM, by scikit-image, of the generated part of a volume.

SSIM: Wang, Bovik, Sheikh & Simoncelli, IEEE Trans. Image Process. 13:600, 2004: Gaussian window of 11
voxels and sigma 1.5, population covariance, data range 1, and the mean over what lies `BORDER` voxels or
more inside, where no window reaches over the edge.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import mean_squared_error, structural_similarity

from vemdiffuse_pipe.evaluation.views import View
from vemdiffuse_pipe.volume import Voxels

BORDER = 5
WIDTH = 2 * BORDER + 1
SLAB_VOXELS = 4_000_000


def psnr(prediction: Voxels, truth: Voxels, planes: Sequence[int]) -> float:
    """Peak signal-to-noise ratio over the voxels of `planes`, in dB; inf where they are equal."""
    errors = [mean_squared_error(_unit(truth[z]), _unit(prediction[z])) for z in planes]
    mean = float(np.mean(errors))
    return float(-10 * np.log10(mean)) if mean > 0 else float("inf")


def ssim_of_view(view: View) -> float:
    """Mean SSIM over the counted rows of a view: 1 for equal images."""
    inside = slice(BORDER, -BORDER)
    counted = _ssim_map(view.prediction, view.truth)[inside, inside][view.rows[inside]]
    return float(counted.mean())


def ssim_3d(prediction: Voxels, truth: Voxels, planes: Sequence[int]) -> float:
    """Mean SSIM with a 3-D window over the generated `planes` that lie inside; zyx.

    Computed in slabs with a halo as deep as the window, so memory does not grow with the stack.
    """
    depth = max(1, SLAB_VOXELS // truth[0].size)
    totals: list[float] = []
    for start in range(BORDER, len(truth) - BORDER, depth):
        stop = min(start + depth, len(truth) - BORDER)
        wanted = [z - start for z in planes if start <= z < stop]
        if wanted:
            halo = slice(start - BORDER, stop + BORDER)
            inside = _ssim_map(prediction[halo], truth[halo])[(slice(BORDER, -BORDER),) * 3]
            totals += [float(plane.mean()) for plane in inside[wanted]]
    return float(np.mean(totals))


def _ssim_map(prediction: Voxels, truth: Voxels) -> NDArray[np.float64]:
    _, local = structural_similarity(
        _unit(truth),
        _unit(prediction),
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    full: NDArray[np.float64] = local
    return full


def _unit(grey: Voxels) -> NDArray[np.float64]:
    return grey / 255.0
