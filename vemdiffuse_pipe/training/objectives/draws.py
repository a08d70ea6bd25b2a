"""What an objective is, and the random numbers that it may draw.

An objective knows how its network is called; the loop knows neither. Draws are made for the whole batch and
then shared out, so that several processes see the noise that one would have seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from vemdiffuse_pipe.models.samplers import EDM_RANGE
from vemdiffuse_pipe.training.gaps import GapBatch


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

    def uniform(self) -> Tensor:
        """Numbers from 0 up to 1, double precision: (share,)."""
        return torch.rand(self.batch_size, generator=self.generator, dtype=torch.float64)[self.share]

    def noise(self, like: Tensor) -> Tensor:
        """Normal deviates for a share of the batch, on its device."""
        every = torch.randn((self.batch_size, *like.shape[1:]), generator=self.generator)
        return every[self.share].to(like.device)


class Objective(Protocol):
    """The loss of a network on a batch: a scalar that knows its gradient."""

    def __call__(self, network: nn.Module, batch: GapBatch, draws: Draws) -> Tensor:
        """The mean over the batch. Which objective it is decides how `network` is called."""
        ...


def draw_training_sigmas(n: int, generator: torch.Generator, mean: float = -0.5, std: float = 1.3) -> Tensor:
    """(n,) noise levels to train at: log-normal (Karras et al. 2022, Eq. 6), one in eight at sigma_max.

    The share at sigma_max teaches the one-pass prediction, which a few-step solver starts from.
    """
    sigma_max = EDM_RANGE.sigma_max
    sigma = (mean + std * torch.randn(n, generator=generator)).exp().clamp(0.01, sigma_max)
    return torch.where(torch.rand(n, generator=generator) < 0.125, torch.full_like(sigma, sigma_max), sigma)
