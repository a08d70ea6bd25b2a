"""What the estimator and the sampler of the default model learn, from gaps cut by a recipe."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vemdiffuse_pipe.models.gap_networks import EstimatorNetwork, SamplerNetwork
from vemdiffuse_pipe.models.preconditioning import preconditioning
from vemdiffuse_pipe.training.degraded import DegradedGaps
from vemdiffuse_pipe.training.objectives.draws import Draws

LOG_VARIANCES = (-8.0, 6.0)
SPREAD_WEIGHT = 0.1


@dataclass(frozen=True, slots=True)
class Estimation:
    """Mean square error of the estimate, and the Gaussian likelihood of its error under its spread.

    The estimate is compared with planes without noise: its gradient is the same on average and varies less.
    The spread is of planes with noise, whose variance is known. The error that the likelihood is of is taken
    as given, so the estimate is not pulled towards what is easy.
    """

    residual_scale: float
    autocast: bool = True

    def __call__(self, network: EstimatorNetwork, batch: DegradedGaps, draws: Draws) -> Tensor:
        """The loss; a scalar. Nothing is drawn."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            mean, spread = network(batch.sections, batch.positions, float(batch.ratio), batch.conditions)
        error = mean.float() - residual(batch, batch.clean, self.residual_scale)
        log_variance = spread.float().clamp(*LOG_VARIANCES)
        square = error.square()
        expected = square.detach() + batch.noise_variance / self.residual_scale**2
        likelihood = 0.5 * (expected * torch.exp(-log_variance) + log_variance)
        loss: Tensor = square.mean() + SPREAD_WEIGHT * likelihood.mean()
        return loss


@dataclass(frozen=True, slots=True)
class PlaneDiffusion:
    """Mean square error of F against its target: EDM Eq. 8 with the weight that makes it uniform."""

    residual_scale: float
    autocast: bool = True

    def __call__(self, network: SamplerNetwork, batch: DegradedGaps, draws: Draws) -> Tensor:
        """The loss; a scalar."""
        clean = residual(batch, batch.noisy, self.residual_scale)
        sigma = draws.sigmas()
        c_skip, c_out, c_in, c_noise = preconditioning(sigma)
        noisy = clean + sigma * draws.noise(clean)
        x = (c_in * noisy).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            raw = network(
                x, batch.sections, batch.positions, float(batch.ratio), batch.conditions, c_noise.flatten()
            )
        loss: Tensor = (raw.float() - (clean - c_skip * noisy) / c_out).square().mean()
        return loss


def residual(batch: DegradedGaps, planes: Tensor, scale: float) -> Tensor:
    """What linear interpolation of the gap's own two sections leaves of its planes: (b, n, y, x)."""
    n = batch.sections.shape[1]
    lower, upper = batch.sections[:, n // 2 - 1 : n // 2], batch.sections[:, n // 2 : n // 2 + 1]
    return (planes - torch.lerp(lower, upper, batch.positions[:, None, None])) / scale
