"""Restoration of one section: filters without weights, and any network that fills gaps, put to it.

    task        filter     the plane is
    denoise     gaussian   the section, blurred by one pixel
    superres    linear     the section at twice the pixels, interpolated
                cubic      the same by the cubic spline

Output pixel i of a doubled section lies at i / 2 - 1 / 4: the corner of the image stays where it was.
The filters are sums in a fixed order of products with fixed weights, so that a pixel is the same bits
wherever its tile was cut.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from vemdiffuse_pipe.config import Task
from vemdiffuse_pipe.models.card import BUILTIN, ModelCard
from vemdiffuse_pipe.models.protocol import GapView, Model
from vemdiffuse_pipe.models.samplers import Noise

GAUSSIAN_SIGMA_PX = 1.0
PHASES = {"denoise": (0.0,), "superres": (-0.25, 0.25)}  # of the output pixels of one of the source


class Filter:
    """A separable filter of one section, by its task and name."""

    def __init__(self, task: Task, name: str) -> None:
        self.card: ModelCard = BUILTIN[task][name]

    def generate(self, gap: GapView, noise: Noise) -> Tensor:
        """The plane: (b, 1, scale * y, scale * x) float32; `noise` is not used."""
        weights = _weights(self.card.task, self.card.name, self.card.halo_px)
        return _filtered(_filtered(gap.sections, weights, 2), weights, 3)


class Restorer:
    """A network that fills gaps, restoring: the section is both sections of a gap, its plane lies between.

    Interpolation of two equal sections is the section, so what the network draws is the difference between
    the truth and what it was given: the section itself, or its linear doubling.
    """

    def __init__(self, card: ModelCard, network: Model) -> None:
        self.card = card
        self.network = network

    def generate(self, gap: GapView, noise: Noise) -> Tensor:
        """One sample for each tile: (b, 1, scale * y, scale * x) float32 grey levels."""
        section = enlarged(gap.sections, self.card.scale)
        middle = torch.tensor([0.5], dtype=torch.float64, device=section.device)
        return self.network.generate(GapView(section.expand(-1, 2, -1, -1), middle, 2), noise)


def enlarged(sections: Tensor, scale: int) -> Tensor:
    """Sections as a network sees them, of the pixels of the output; `scale`: 1, as they are, or 2.

    Doubled linearly: (..., y + 2, x + 2) -> (..., 2 y, 2 x), one pixel of halo taken off.
    """
    if scale == 1:
        return sections
    weights = _weights("superres", "linear", 1)
    return _filtered(_filtered(sections, weights, -2), weights, -1)


def _filtered(x: Tensor, weights: tuple[tuple[float, ...], ...], axis: int) -> Tensor:
    """x filtered along `axis` with each phase's weights, the phases side by side, the halo taken off."""
    n = x.shape[axis] - len(weights[0]) + 1
    phases = []
    for row in weights:
        total = x.narrow(axis, 0, n) * row[0]
        for shift, weight in enumerate(row[1:], 1):
            total = total + x.narrow(axis, shift, n) * weight  # no fused form: its rounding depends on place
        phases.append(total)
    axis %= x.dim()
    return torch.stack(phases, axis + 1).flatten(axis, axis + 1)


@cache
def _weights(task: str, name: str, halo_px: int) -> tuple[tuple[float, ...], ...]:
    """For each phase the weights of the pixels -halo_px .. halo_px."""
    offsets = np.arange(-halo_px, halo_px + 1)
    if name == "gaussian":
        bell = np.exp(-0.5 * (offsets / GAUSSIAN_SIGMA_PX) ** 2)
        return (tuple(bell / bell.sum()),)
    from scipy.ndimage import map_coordinates  # where networks alone are used scipy need not be there

    order, wide = (1 if name == "linear" else 3), 4 * halo_px + 8
    rows = []
    for phase in PHASES[task]:
        impulses = np.eye(2 * wide + 1)[wide + offsets]
        at = [[wide + phase]]
        rows.append(tuple(float(map_coordinates(i, at, order=order, mode="mirror")[0]) for i in impulses))
    return tuple(rows)
