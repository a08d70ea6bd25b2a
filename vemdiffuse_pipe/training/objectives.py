"""What a network is trained to do: the loss of a batch, a pure function of the batch and of its draws.

An objective knows how its network is called; the loop knows neither. Draws are made for the whole batch and
then shared out, so that several processes see the noise that one would have seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from vemdiffuse_pipe.models.edm import draw_training_sigmas, preconditioning
from vemdiffuse_pipe.training.gaps import GapBatch

DIFFICULTY_WEIGHT = 2.0


@dataclass(frozen=True, slots=True)
class Draws:
    """Random numbers of one step: of a batch of `batch_size`, of which this process has `share`."""

    generator: torch.Generator
    batch_size: int
    share: slice

    @classmethod
    def of(cls, seed: int, step: int, batch_size: int, share: slice = slice(None)) -> Draws:
        """The draws that belong to a step, of a seed."""
        generator = torch.Generator().manual_seed((seed * 2**32 + step) % 2**63)
        return cls(generator, batch_size, share)

    def sigmas(self) -> Tensor:
        """Noise levels to train at: (share, 1, 1, 1)."""
        return draw_training_sigmas(self.batch_size, self.generator)[self.share, None, None, None]

    def noise(self, like: Tensor) -> Tensor:
        """Normal deviates for a share of the batch, on its device."""
        every = torch.randn((self.batch_size, *like.shape[1:]), generator=self.generator)
        return every[self.share].to(like.device)


class Objective(Protocol):
    """The loss of a network on a batch: a scalar that knows its gradient."""

    def __call__(self, network: nn.Module, batch: GapBatch, draws: Draws) -> Tensor:
        """The mean over the batch. Which objective it is decides how `network` is called."""
        ...


def linear_between(sections: Tensor, ratio: int) -> Tensor:
    """Linear interpolation of a gap at its r - 1 planes: (b, 2, y, x) -> (b, r - 1, y, x)."""
    t = (torch.arange(1, ratio, device=sections.device) / ratio)[:, None, None]
    return sections[:, :1] * (1 - t) + sections[:, 1:] * t


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
