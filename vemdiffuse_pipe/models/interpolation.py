"""Interpolation along z: the smallest real models, and the oracle of everything that is not science.

Linear and cubic-spline interpolation are both fixed weights on sections. The cubic B-spline's weights
fall by 0.268 a section (Unser 1999), so 13 sections on either side give what the whole volume gives to
within 1e-5 of a grey level; sections are mirrored at the ends, as scipy's mode "mirror" does.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemdiffuse_pipe.models.card import CUBIC, LINEAR, ModelCard
from vemdiffuse_pipe.models.protocol import GapView
from vemdiffuse_pipe.models.samplers import Noise


class Interpolation:
    """Linear (order 1) or cubic-spline (order 3) interpolation along z."""

    def __init__(self, order: int) -> None:
        self.order = order

    @property
    def card(self) -> ModelCard:
        """LINEAR or CUBIC."""
        return LINEAR if self.order == 1 else CUBIC

    def generate(self, gap: GapView, noise: Noise) -> Tensor:
        """The planes between: (b, n, y, x) float32; `noise` is not asked for."""
        if self.order == 1:
            return linear_planes(gap.sections, gap.positions.float())
        weights = _spline_weights(tuple(gap.positions.tolist()), gap.sections.shape[1])
        return torch.einsum("ns,bsyx->bnyx", torch.from_numpy(weights).to(gap.sections), gap.sections)


def linear_planes(sections: Tensor, positions: Tensor) -> Tensor:
    """Linear interpolation of gaps: sections (b, 2, y, x) -> planes (b, n, y, x), of their dtype.

    `positions`: (n,) in [0, 1], the same in every gap, or (b, n), those of each.
    """
    return torch.lerp(sections[:, :1], sections[:, 1:], positions[..., None, None])


@lru_cache(maxsize=1024)  # on an exact grid gaps differ in where their planes lie
def _spline_weights(positions: tuple[float, ...], n_sections: int) -> NDArray[np.float32]:
    """Weight of each section for each position: the spline through a unit impulse at that section."""
    from scipy.ndimage import map_coordinates  # where networks alone are used scipy need not be there

    middle = n_sections // 2 - 1
    wide = 2 * n_sections
    rows = []
    for section in range(n_sections):
        impulse = np.zeros(3 * wide)
        impulse[wide + section] = 1.0
        at = np.array([[wide + middle + t for t in positions]])
        rows.append(map_coordinates(impulse, at, order=3, mode="mirror"))
    return np.array(rows).T.astype(np.float32)
