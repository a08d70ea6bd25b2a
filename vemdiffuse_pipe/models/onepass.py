"""Networks that answer once, as models: no noise, no samples, no uncertainty."""

from __future__ import annotations

from math import floor

import torch
from torch import Tensor

from vemdiffuse_pipe.models.a2i3dem import AxialNetwork
from vemdiffuse_pipe.models.interpolation import linear_planes
from vemdiffuse_pipe.models.lean import LeanNetwork
from vemdiffuse_pipe.models.network import NetworkModel
from vemdiffuse_pipe.models.protocol import GapView
from vemdiffuse_pipe.models.pssr import Pssr
from vemdiffuse_pipe.models.rcan import Rcan
from vemdiffuse_pipe.models.samplers import Noise
from vemdiffuse_pipe.models.sizes.a2i3dem import AXIAL_BATCH
from vemdiffuse_pipe.models.sru3d import Sru3dNetwork

ROUNDING = 1e-6  # of a plane: what is nearer to a section than this lies on it


def predicted_residual(network: LeanNetwork, sections: Tensor, positions: Tensor, ratio: float) -> Tensor:
    """What the lean network makes of a gap without noise: (b, n, y, x), the residual over its scale.

    `sections`: (b, 2, y, x) standardised grey; `positions`: (n,). The noisy planes are zeros, and so is the
    noise level.
    """
    b, _, y, x = sections.shape
    zeros = sections.new_zeros((b, len(positions), y, x)).contiguous(memory_format=torch.channels_last)
    out: Tensor = network(zeros, sections, positions, ratio, sections.new_zeros(b))
    return out


class LeanRegression(NetworkModel[LeanNetwork]):
    """Linear interpolation plus the residual that the lean network predicts."""

    def _planes(self, gap: GapView, noise: Noise) -> Tensor:
        sections, positions = self._standardised(gap.sections), gap.positions.float()
        with self._in_precision(sections):
            residual = predicted_residual(self.network, sections, positions, float(gap.ratio))
        return self._grey(linear_planes(sections, positions) + self.card.residual_scale * residual.float())


class AxialRestoration(NetworkModel[AxialNetwork]):
    """Planes interpolated along z, restored in every xz plane, or in xz and in yz planes and averaged.

    An axial plane holds `reach_sections` gaps more on either side, so that it is more than a strip.
    """

    def _planes(self, gap: GapView, noise: Noise) -> Tensor:
        first, wanted = rows_of_gap(gap, self.card.reach_sections)
        stack = interpolated(self._standardised(gap.sections), gap.ratio, first)
        restored = self._every_plane(stack.transpose(1, 2)).transpose(1, 2)
        if self.network.config.has_both_axes:
            restored = (restored + self._every_plane(stack.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)) / 2
        return self._grey(restored[:, wanted])

    def _every_plane(self, stack: Tensor) -> Tensor:
        """(b, planes, z, x) -> the same, a few planes at a time."""
        b, _, n, _ = stack.shape
        with self._in_precision(stack):
            parts = axial_planes(stack, self.network.config.multiple_px).split(AXIAL_BATCH)
            restored = torch.cat([self.network(part).float() for part in parts])
        planes: Tensor = restored[:, 0, :n].reshape(b, -1, n, restored.shape[-1])
        return planes


class VolumetricNetwork(NetworkModel[Sru3dNetwork]):
    """Planes that the three-dimensional network makes of a few sections."""

    def _planes(self, gap: GapView, noise: Noise) -> Tensor:
        with self._in_precision(gap.sections):
            planes = self.network(self._standardised(gap.sections))
        _, wanted = rows_of_gap(gap, self.card.reach_sections)
        return self._grey(planes[:, wanted])


class OneImage(NetworkModel[Rcan | Pssr]):
    """One section, restored by a plain network; what it is given of a gap is its lower section."""

    def _planes(self, gap: GapView, noise: Noise) -> Tensor:
        section = self._standardised(gap.sections[:, :1])
        with self._in_precision(section):
            restored = self.network(section)
        return self._grey(restored)


def interpolated(sections: Tensor, ratio: float, first: float = 0.0) -> Tensor:
    """Linear interpolation along z, at planes that are 1 / ratio of a section distance apart.

    (b, s, y, x) -> (b, planes, y, x): from `first`, a part of a plane above the first section, to the last
    plane that is not above the last section. Of a whole ratio: (s - 1) * ratio + 1 planes.
    """
    n = sections.shape[1]
    n_planes = floor((n - 1) * ratio - first + ROUNDING) + 1
    at = (torch.arange(n_planes, device=sections.device, dtype=sections.dtype) + first) / ratio
    weights = (1 - (at[:, None] - torch.arange(n, device=sections.device)).abs()).clamp(min=0)
    return torch.einsum("ps,bsyx->bpyx", weights, sections)


def axial_planes(stack: Tensor, multiple_px: int) -> Tensor:
    """Planes along z as the axial network sees them: (b, planes, z, x) -> (b * planes, 1, rows, x).

    The last row is repeated below until there are whole windows of rows.
    """
    n = stack.shape[2]
    below = stack[:, :, -1:].expand(-1, -1, -n % multiple_px, -1)
    return torch.cat([stack, below], dim=2).flatten(0, 1)[:, None]


def rows_of_gap(gap: GapView, reach_sections: int) -> tuple[float, list[int]]:
    """Where the first plane above the lowest section lies, and which of those from it on are wanted.

    The lowest section is `reach_sections` below the gap; of a whole ratio a plane lies on it: the first is 0.
    """
    above = [(reach_sections + float(t)) * gap.ratio for t in gap.positions]
    first = above[0] - floor(above[0] + ROUNDING)
    return (first if first > ROUNDING else 0.0), [round(plane - first) for plane in above]
