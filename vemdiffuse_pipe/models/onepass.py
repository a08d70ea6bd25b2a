"""Networks that answer once, as models: no noise, no samples, no uncertainty."""

from __future__ import annotations

import torch
from torch import Tensor

from vemdiffuse_pipe.models.a2i3dem import AxialNetwork
from vemdiffuse_pipe.models.card import ModelCard
from vemdiffuse_pipe.models.diffusion import in_precision
from vemdiffuse_pipe.models.kinds import AXIAL_BATCH
from vemdiffuse_pipe.models.lean import LeanNetwork
from vemdiffuse_pipe.models.protocol import GapView, Noise, Settings, tile_by_tile
from vemdiffuse_pipe.models.pssr import Pssr
from vemdiffuse_pipe.models.rcan import Rcan
from vemdiffuse_pipe.models.sru3d import Sru3dNetwork


def predicted_residual(network: LeanNetwork, sections: Tensor, positions: Tensor, ratio: float) -> Tensor:
    """What the lean network makes of a gap without noise: (b, n, y, x), the residual over its scale.

    `sections`: (b, 2, y, x) standardised grey; `positions`: (n,). The noisy planes are zeros, and so is the
    noise level that it is told.
    """
    b, _, y, x = sections.shape
    zeros = sections.new_zeros((b, len(positions), y, x)).contiguous(memory_format=torch.channels_last)
    out: Tensor = network(zeros, sections, positions, ratio, sections.new_zeros(b))
    return out


class LeanRegression:
    """Linear interpolation plus the residual that the lean network predicts."""

    def __init__(self, card: ModelCard, network: LeanNetwork, settings: Settings) -> None:
        self.card = card
        self.network = network.eval().requires_grad_(False)
        self.settings = settings

    @torch.inference_mode()
    def generate(self, gap: GapView, noise: Noise) -> Tensor:
        """The planes of each tile: (b, n, y, x) float32 grey levels."""
        return tile_by_tile(self._predict, gap, noise)

    def _predict(self, gap: GapView, noise: Noise) -> Tensor:
        mean, std = self.settings.contrast
        sections = ((gap.sections - mean) / std).contiguous(memory_format=torch.channels_last)
        positions = gap.positions.float()
        with in_precision(sections, self.settings):
            residual = predicted_residual(self.network, sections, positions, float(gap.ratio))
        linear: Tensor = torch.lerp(sections[:, :1], sections[:, 1:], positions[:, None, None])
        grey: Tensor = (linear + self.card.residual_scale * residual.float()) * std + mean
        return grey


class AxialRestoration:
    """Planes interpolated along z, restored in every xz plane, or in xz and in yz planes and averaged.

    An axial plane holds `reach_sections` gaps more on either side, so that it is more than a strip.
    """

    def __init__(self, card: ModelCard, network: AxialNetwork, settings: Settings) -> None:
        self.card = card
        self.network = network.eval().requires_grad_(False)
        self.settings = settings

    @torch.inference_mode()
    def generate(self, gap: GapView, noise: Noise) -> Tensor:
        """The planes of each tile: (b, n, y, x) float32 grey levels."""
        return tile_by_tile(self._restore, gap, noise)

    def _restore(self, gap: GapView, noise: Noise) -> Tensor:
        mean, std = self.settings.contrast
        stack = interpolated((gap.sections - mean) / std, gap.ratio)
        restored = self._every_plane(stack.transpose(1, 2)).transpose(1, 2)
        if self.network.config.has_both_axes:
            restored = (restored + self._every_plane(stack.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)) / 2
        grey: Tensor = restored[:, _rows_of_gap(gap, self.card.reach_sections)] * std + mean
        return grey

    def _every_plane(self, stack: Tensor) -> Tensor:
        """(b, planes, z, x) -> the same, a few planes at a time."""
        b, _, n, _ = stack.shape
        with in_precision(stack, self.settings):
            parts = axial_planes(stack, self.network.config.multiple_px).split(AXIAL_BATCH)
            restored = torch.cat([self.network(part).float() for part in parts])
        planes: Tensor = restored[:, 0, :n].reshape(b, -1, n, restored.shape[-1])
        return planes


class VolumetricNetwork:
    """Planes that the three-dimensional network makes of a few sections."""

    def __init__(self, card: ModelCard, network: Sru3dNetwork, settings: Settings) -> None:
        self.card = card
        self.network = network.eval().requires_grad_(False)
        self.settings = settings

    @torch.inference_mode()
    def generate(self, gap: GapView, noise: Noise) -> Tensor:
        """The planes of each tile: (b, n, y, x) float32 grey levels."""
        return tile_by_tile(self._make, gap, noise)

    def _make(self, gap: GapView, noise: Noise) -> Tensor:
        mean, std = self.settings.contrast
        with in_precision(gap.sections, self.settings):
            planes = self.network((gap.sections - mean) / std).float()
        grey: Tensor = planes[:, _rows_of_gap(gap, self.card.reach_sections)] * std + mean
        return grey


class OneImage:
    """One section, restored by a plain network; what it is given of a gap is its lower section."""

    def __init__(self, card: ModelCard, network: Rcan | Pssr, settings: Settings) -> None:
        self.card = card
        self.network = network.eval().requires_grad_(False)
        self.settings = settings

    @torch.inference_mode()
    def generate(self, gap: GapView, noise: Noise) -> Tensor:
        """The plane of each tile: (b, 1, y, x) float32 grey levels."""
        return tile_by_tile(self._restore, gap, noise)

    def _restore(self, gap: GapView, noise: Noise) -> Tensor:
        mean, std = self.settings.contrast
        section = ((gap.sections[:, :1] - mean) / std).contiguous(memory_format=torch.channels_last)
        with in_precision(section, self.settings):
            grey: Tensor = self.network(section).float() * std + mean
        return grey


def interpolated(sections: Tensor, ratio: int) -> Tensor:
    """Linear interpolation along z: (b, s, y, x) -> (b, (s - 1) * ratio + 1, y, x)."""
    n = sections.shape[1]
    at = torch.arange((n - 1) * ratio + 1, device=sections.device, dtype=sections.dtype) / ratio
    weights = (1 - (at[:, None] - torch.arange(n, device=sections.device)).abs()).clamp(min=0)
    return torch.einsum("ps,bsyx->bpyx", weights, sections)


def axial_planes(stack: Tensor, multiple_px: int) -> Tensor:
    """Planes along z as the axial network sees them: (b, planes, z, x) -> (b * planes, 1, rows, x).

    The last row is repeated below until there are whole windows of rows.
    """
    n = stack.shape[2]
    below = stack[:, :, -1:].expand(-1, -1, -n % multiple_px, -1)
    return torch.cat([stack, below], dim=2).flatten(0, 1)[:, None]


def _rows_of_gap(gap: GapView, reach_sections: int) -> list[int]:
    """Where the wanted planes lie among those of all sections."""
    return [reach_sections * gap.ratio + round(float(t) * gap.ratio) for t in gap.positions]
