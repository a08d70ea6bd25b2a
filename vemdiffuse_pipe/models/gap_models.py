"""The estimator and the sampler as models, each alone and both from one checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vemdiffuse_pipe.models.card import ModelCard
from vemdiffuse_pipe.models.gap_networks import EstimatorNetwork, SamplerNetwork, condition_values
from vemdiffuse_pipe.models.interpolation import linear_planes
from vemdiffuse_pipe.models.network import NetworkModel
from vemdiffuse_pipe.models.preconditioning import edm_denoiser
from vemdiffuse_pipe.models.protocol import GapView, Settings
from vemdiffuse_pipe.models.samplers import EDM_RANGE, Noise, draw
from vemdiffuse_pipe.models.sizes.gap import SamplerSizes

LOG_VARIANCES = (-8.0, 6.0)  # of residuals over their scale; the range that training keeps to


class Estimator(NetworkModel[EstimatorNetwork]):
    """Linear interpolation plus the residual that the network expects, and how far off it expects to be."""

    def _planes(self, gap: GapView, noise: Noise) -> Tensor:
        return self._estimate(gap)[0]

    @torch.inference_mode()
    def estimate(self, gap: GapView) -> tuple[Tensor, Tensor]:
        """(best estimate, its deviation) of the planes of each tile: (b, n, y, x) float32 grey levels."""
        if gap.sections.device.type != "cpu":
            return self._estimate(gap)
        tiles = [self._estimate(GapView(s[None], gap.positions, gap.ratio)) for s in gap.sections]
        means, spreads = zip(*tiles, strict=True)
        return torch.cat(means), torch.cat(spreads)

    def _estimate(self, gap: GapView) -> tuple[Tensor, Tensor]:
        sections, positions, conditions = _inputs(self, gap)
        with self._in_precision(sections):
            residual, log_variance = self.network(sections, positions, float(gap.ratio), conditions)
        scale, (_, deviation) = self.card.residual_scale, self.settings.contrast
        mean = linear_planes(_own(sections), positions) + scale * residual.float()
        spread = torch.exp(0.5 * log_variance.float().clamp(*LOG_VARIANCES))
        return self._grey(mean), scale * deviation * spread


class PlaneSampler(NetworkModel[SamplerNetwork]):
    """Draws planes: linear interpolation plus a residual sampled from its distribution given the sections."""

    def _planes(self, gap: GapView, noise: Noise) -> Tensor:
        sections, positions, conditions = _inputs(self, gap)

        def network(scaled: Tensor, c_noise: Tensor) -> Tensor:
            with self._in_precision(scaled):
                raw: Tensor = self.network(scaled, sections, positions, float(gap.ratio), conditions, c_noise)
            return raw

        def channels_last(step: int) -> Tensor:
            return noise(step).contiguous(memory_format=torch.channels_last)

        denoise = edm_denoiser(network)
        residual = draw(self.settings.sampler, denoise, channels_last, self.settings.steps, EDM_RANGE)
        return self._grey(linear_planes(_own(sections), positions) + self.card.residual_scale * residual)


class BothNetworks(nn.Module):
    """An estimator and a sampler of the same sizes."""

    def __init__(self, config: SamplerSizes = SamplerSizes()) -> None:  # noqa: B008
        super().__init__()
        self.config = config
        self.estimator = EstimatorNetwork(config.estimator)
        self.sampler = SamplerNetwork(config)


class EstimatorAndSampler:
    """Both answers: `estimate` by one network, samples by the other."""

    def __init__(self, card: ModelCard, network: BothNetworks, settings: Settings) -> None:
        self.card, self.network = card, network.estimator
        self._estimator = Estimator(card, network.estimator, settings)
        self._sampler = PlaneSampler(card, network.sampler, settings)

    def estimate(self, gap: GapView) -> tuple[Tensor, Tensor]:
        """(best estimate, its deviation) of the planes of each tile: (b, n, y, x) float32 grey levels."""
        return self._estimator.estimate(gap)

    def generate(self, gap: GapView, noise: Noise) -> Tensor:
        """A sample of the planes of each tile: (b, n, y, x) float32 grey levels."""
        return self._sampler.generate(gap, noise)


def _inputs(
    model: NetworkModel[EstimatorNetwork] | NetworkModel[SamplerNetwork], gap: GapView
) -> tuple[Tensor, Tensor, Tensor]:
    """Sections, standardised; positions; conditions: what both networks are given of a gap."""
    cut = model.settings.sectioning
    gap_nm = gap.ratio * cut.plane_step_nm
    values = condition_values(
        gap_nm / cut.pixel_nm, cut.pixel_nm, cut.section_nm / gap_nm, cut.plane_nm / gap_nm
    )
    sections = model._standardised(gap.sections)
    conditions = torch.tensor([values], device=sections.device).expand(len(sections), -1)
    return sections, gap.positions.float(), conditions


def _own(sections: Tensor) -> Tensor:
    """The gap's own two sections."""
    first = sections.shape[1] // 2 - 1
    return sections[:, first : first + 2]
