"""The lean network as a one-pass model: the best single estimate, without noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vemdiffuse_pipe.models.card import ModelCard
from vemdiffuse_pipe.models.edm import SIGMA_MAX
from vemdiffuse_pipe.models.lean import LeanNetwork
from vemdiffuse_pipe.models.protocol import GapView


class LeanRegression:
    """Linear interpolation plus the residual that the network expects there: no noise, no samples, no spread.

    `contrast`: mean and deviation of the volume's grey levels; the network sees standardised grey.
    """

    def __init__(
        self, card: ModelCard, network: LeanNetwork, *, contrast: tuple[float, float], precision: str
    ) -> None:
        self.card = card
        self.network = network.eval().requires_grad_(False)
        self.mean, self.std = contrast
        self.autocast = precision == "bfloat16"

    @torch.inference_mode()
    def generate(self, gap: GapView, noise: Tensor) -> Tensor:
        """The best estimate for each tile: (b, n, y, x) float32 grey. On a CPU tiles are taken singly."""
        size = len(gap.sections) if gap.sections.device.type != "cpu" else 1
        return torch.cat([self._estimate(sections, gap) for sections in gap.sections.split(size)])

    def _estimate(self, sections: Tensor, gap: GapView) -> Tensor:
        sections = ((sections - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        positions = gap.positions.float()
        level = torch.full((len(sections),), math.log(SIGMA_MAX) / 4, device=sections.device)
        nothing = torch.zeros(len(sections), len(positions), *sections.shape[2:], device=sections.device)
        with torch.autocast(sections.device.type, torch.bfloat16, enabled=self.autocast):
            raw = self.network(nothing, sections, positions, float(gap.ratio), level)
        linear: Tensor = torch.lerp(sections[:, :1], sections[:, 1:], positions[:, None, None])
        grey: Tensor = (linear + self.card.residual_scale * raw.float()) * self.std + self.mean
        return grey
