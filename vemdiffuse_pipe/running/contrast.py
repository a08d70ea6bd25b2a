"""How bright and how contrasted a volume is: what a trained model must know before it starts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.volume import Source, Voxels

WINDOW_PX = 512
LEAST_SHARE = 0.01


def measure_contrast(source: Source, rejected: Sequence[int] = ()) -> tuple[float, float]:
    """Mean and standard deviation of the grey levels, each rounded to 1e-3. A rule without chance.

    Of the sections at 1/6, 1/2 and 5/6 of the depth (or the next one that is not `rejected`), the central
    window of at most 512 x 512 px. Levels 0 and 255 are left out, being padding or saturation more often
    than tissue, unless fewer than 1 % of the voxels remain. A constant volume has deviation 1.
    """
    shape = source.spec.shape
    sections = [_kept(shape[0] * part // 6, shape[0], rejected) for part in (1, 3, 5)]
    voxels = np.concatenate([source.read(_window(shape, section)).ravel() for section in sections])
    tissue = _tissue(voxels)
    mean, deviation = (round(float(v), 3) for v in (tissue.mean(), tissue.std()))
    return mean, deviation or 1.0


def _tissue(voxels: Voxels) -> NDArray[np.float64]:
    inside = voxels[(voxels > 0) & (voxels < 255)]
    return (inside if inside.size >= LEAST_SHARE * voxels.size else voxels).astype(np.float64)


def _kept(section: int, n_sections: int, rejected: Sequence[int]) -> int:
    return next(u for u in range(section, n_sections) if u not in rejected)


def _window(shape: Zyx, section: int) -> Box:
    y, x = ((n - min(n, WINDOW_PX)) // 2 for n in shape[1:])
    return Box.of_shape((1, min(shape[1], WINDOW_PX), min(shape[2], WINDOW_PX)), (section, y, x))
