"""The noise in one plane: what UDiM answers, given the sections of a gap or what lies between them.

Of each gap one plane is drawn. All planes of a gap would cost r - 1 times as much and teach much the same:
for the same operations, one plane of each of r - 1 gaps is more to learn from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vemdiffuse_pipe.models.diffusion import udim_inputs
from vemdiffuse_pipe.models.samplers import trained_gammas
from vemdiffuse_pipe.training.gaps import GapBatch
from vemdiffuse_pipe.training.objectives.draws import Draws
from vemdiffuse_pipe.training.objectives.residual import difficulty_aware


@dataclass(frozen=True, slots=True)
class PlaneNoise:
    """Mean square error of the noise in sqrt(gamma) plane + sqrt(1 - gamma) noise (Lu et al. 2024).

    `n_conditions`: 2, the sections; 1, their interpolation. With `difficulty` a second output learns the
    logarithm of the variance of that error; it is given the error as it is, so that no gradient of it
    reaches the noise.
    """

    n_conditions: int
    autocast: bool = True
    difficulty: bool = False

    def __call__(self, network: nn.Module, batch: GapBatch, draws: Draws) -> Tensor:
        """The loss; a scalar. Grey in [-1, 1]."""
        device, planes = batch.targets.device, batch.targets
        layer = (draws.uniform() * planes.shape[1]).long().to(device)
        gamma = gammas_at(draws.uniform()).to(device)
        plane = planes[torch.arange(len(planes), device=device), layer][:, None]
        noise = draws.noise(plane)
        level = gamma[:, None, None, None]
        noisy = level.sqrt() * plane + (1 - level).sqrt() * noise
        inputs = udim_inputs(self.n_conditions, batch.sections, noisy, (layer + 1) / batch.ratio)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.autocast):
            out: Tensor = network(inputs, gamma, layer.float()).float()
        error = (out[:, :1] - noise).square()
        if not self.difficulty:
            return error.mean()
        return error.mean() + difficulty_aware(error.detach(), out[:, 1:]).mean()


def gammas_at(places: Tensor) -> Tensor:
    """Noise levels at places from 0 to 1 along the chain, float32, linear between neighbouring steps.

    Of places that are evenly drawn they are those of Chen et al. 2021: a step, and evenly from its range.
    """
    trained = torch.tensor(trained_gammas(), dtype=torch.float64)
    at = places * (len(trained) - 1)
    step = at.long().clamp(max=len(trained) - 2)
    return torch.lerp(trained[step], trained[step + 1], at - step).float()
