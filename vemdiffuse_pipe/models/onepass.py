"""Networks that answer once, as models: no noise, no samples, no uncertainty."""

from __future__ import annotations

import torch
from torch import Tensor

from vemdiffuse_pipe.models.card import ModelCard
from vemdiffuse_pipe.models.diffusion import in_precision
from vemdiffuse_pipe.models.lean import LeanNetwork
from vemdiffuse_pipe.models.protocol import GapView, Noise, Settings, tile_by_tile


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
