"""What an estimator and a sampler learn, from gaps cut by a recipe or out of any volume."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vemdiffuse_pipe.models.gap_networks import condition_values
from vemdiffuse_pipe.models.preconditioning import preconditioning
from vemdiffuse_pipe.models.protocol import Sectioning
from vemdiffuse_pipe.training.degraded import DegradedGaps
from vemdiffuse_pipe.training.gaps import GapBatch
from vemdiffuse_pipe.training.objectives.draws import Draws

LOG_VARIANCES = (-8.0, 6.0)
SPREAD_WEIGHT = 0.1
USUAL_VARIANCE, LEAST_VARIANCE = 0.5, 0.05  # of residuals over their scale


@dataclass(frozen=True, slots=True)
class Estimation:
    """Mean square error of the estimate, and the Gaussian likelihood of its error under its spread.

    The estimate is compared with planes without noise: its gradient is the same on average and varies less.
    The spread is of planes with noise, whose variance is known. The error that the likelihood is of is taken
    as given, so the estimate is not pulled towards what is easy.

    `is_balanced`: gaps count by their error over the error that is expected of them, so that narrow gaps and
    thick sections, whose errors are small, are learnt as well as wide ones.
    """

    residual_scale: float
    autocast: bool = True
    is_balanced: bool = False

    def __call__(self, network: nn.Module, batch: DegradedGaps, draws: Draws) -> Tensor:
        """The loss; a scalar. Nothing is drawn."""
        device = batch.sections.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.autocast):
            mean, spread = network(batch.sections, batch.positions, float(batch.ratio), batch.conditions)
        error = mean.float() - residual(batch, batch.clean, self.residual_scale)
        log_variance = spread.float().clamp(*LOG_VARIANCES)
        square = error.square()
        expected = square.detach() + batch.noise_variance / self.residual_scale**2
        likelihood = 0.5 * (expected * torch.exp(-log_variance) + log_variance)
        per_gap = square.mean(dim=(1, 2, 3))
        if self.is_balanced:
            usual = torch.exp(log_variance.detach()).mean(dim=(1, 2, 3))
            per_gap = USUAL_VARIANCE * per_gap / (usual + LEAST_VARIANCE)
        loss: Tensor = per_gap.mean() + SPREAD_WEIGHT * likelihood.mean()
        return loss


@dataclass(frozen=True, slots=True)
class PlaneDiffusion:
    """Mean square error of F against its target: EDM Eq. 8 with the weight that makes it uniform."""

    residual_scale: float
    autocast: bool = True

    def __call__(self, network: nn.Module, batch: DegradedGaps, draws: Draws) -> Tensor:
        """The loss; a scalar."""
        clean = residual(batch, batch.noisy, self.residual_scale)
        sigma = draws.sigmas()
        c_skip, c_out, c_in, c_noise = (c.to(clean.device) for c in preconditioning(sigma))
        noisy = clean + sigma.to(clean.device) * draws.noise(clean)
        x = (c_in * noisy).contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.autocast):
            raw = network(
                x, batch.sections, batch.positions, float(batch.ratio), batch.conditions, c_noise.flatten()
            )
        loss: Tensor = (raw.float() - (clean - c_skip * noisy) / c_out).square().mean()
        return loss


@dataclass(frozen=True, slots=True)
class OfAnyVolume:
    """An objective of gaps as they were cut out of a volume, none of whose noise is known.

    `sectioning`: what the network is told of all of them. Planes of the middle gap are learnt.
    """

    objective: Estimation | PlaneDiffusion
    sectioning: Sectioning

    def __call__(self, network: nn.Module, batch: GapBatch, draws: Draws) -> Tensor:
        """The loss; a scalar."""
        return self.objective(network, as_degraded(batch, self.sectioning), draws)


def as_degraded(batch: GapBatch, sectioning: Sectioning) -> DegradedGaps:
    """Gaps of a volume as gaps that were cut by a recipe: planes as they are, of no known noise."""
    r, (_, planes) = batch.ratio, batch.middle
    gap_px, gap_nm = r * sectioning.plane_step_nm / sectioning.pixel_nm, r * sectioning.plane_step_nm
    told = condition_values(
        gap_px, sectioning.pixel_nm, sectioning.section_nm / gap_nm, sectioning.plane_nm / gap_nm
    )
    conditions = torch.tensor([told], device=planes.device).expand(len(planes), -1)
    positions = torch.arange(1, r, device=planes.device) / r
    return DegradedGaps(batch.sections, planes, planes, torch.zeros_like(planes), conditions, positions, r)


def residual(batch: DegradedGaps, planes: Tensor, scale: float) -> Tensor:
    """What linear interpolation of the gap's own two sections leaves of its planes: (b, n, y, x)."""
    n = batch.sections.shape[1]
    lower, upper = batch.sections[:, n // 2 - 1 : n // 2], batch.sections[:, n // 2 : n // 2 + 1]
    return (planes - torch.lerp(lower, upper, batch.positions[:, None, None])) / scale
