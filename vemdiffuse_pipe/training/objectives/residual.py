"""The residual that linear interpolation leaves, of all planes of a gap at once: the lean network's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vemdiffuse_pipe.models.interpolation import linear_planes
from vemdiffuse_pipe.models.preconditioning import preconditioning
from vemdiffuse_pipe.training.gaps import GapBatch
from vemdiffuse_pipe.training.objectives.draws import Draws

DIFFICULTY_WEIGHT = 2.0


def linear_between(sections: Tensor, ratio: int) -> Tensor:
    """Linear interpolation of a gap at its r - 1 planes: (b, 2, y, x) -> (b, r - 1, y, x)."""
    return linear_planes(sections, torch.arange(1, ratio, device=sections.device) / ratio)


@dataclass(frozen=True, slots=True)
class ResidualDiffusion:
    """Mean square error of F against its target: EDM Eq. 8 with the weight that makes it uniform.

    The clean sample is the residual (truth - linear interpolation) / residual_scale. With `difficulty` the
    error of each pixel is weighed by s, what a second head takes for the logarithm of its variance:
    0.5 * (exp(-w s) * error^2 + w s), w = 2 (after Kendall & Gal 2017; Lu et al. 2024).
    """

    residual_scale: float
    autocast: bool = True
    difficulty: bool = False

    def __call__(self, network: nn.Module, batch: GapBatch, draws: Draws) -> Tensor:
        """The loss; a scalar."""
        clean = (batch.targets - linear_between(batch.sections, batch.ratio)) / self.residual_scale
        sigma = draws.sigmas()
        c_skip, c_out, c_in, c_noise = (c.to(clean.device) for c in preconditioning(sigma))
        noisy = clean + sigma.to(clean.device) * draws.noise(clean)
        heads = 2 if self.difficulty else 1
        raw = _lean(network, c_in * noisy, batch, c_noise.flatten(), self.autocast, heads)
        prediction, *s = raw.chunk(heads, dim=1)
        error = (prediction - (clean - c_skip * noisy) / c_out).square()
        return difficulty_aware(error, s[0]).mean() if s else error.mean()


@dataclass(frozen=True, slots=True)
class Regression:
    """Mean absolute error of one pass: the network is given no noise, and answers with the residual."""

    residual_scale: float
    autocast: bool = True

    def __call__(self, network: nn.Module, batch: GapBatch, draws: Draws) -> Tensor:
        """The loss; a scalar. Nothing is drawn."""
        clean = (batch.targets - linear_between(batch.sections, batch.ratio)) / self.residual_scale
        raw = _lean(network, torch.zeros_like(clean), batch, clean.new_zeros(len(clean)), self.autocast)
        return (raw - clean).abs().mean()


def difficulty_aware(square_error: Tensor, s: Tensor) -> Tensor:
    """0.5 * (exp(-w s) * error^2 + w s) for each pixel; least where exp(w s) is the error expected there."""
    scaled = DIFFICULTY_WEIGHT * s.clamp(-5, 5)
    return 0.5 * ((-scaled).exp() * square_error + scaled)


def _lean(
    network: nn.Module, x: Tensor, batch: GapBatch, c_noise: Tensor, autocast: bool, heads: int = 1
) -> Tensor:
    """The lean network's answer in float32."""
    positions = torch.arange(1, batch.ratio, device=x.device) / batch.ratio
    with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
        raw: Tensor = network(x, batch.sections, positions, float(batch.ratio), c_noise, heads)
    return raw.float()
