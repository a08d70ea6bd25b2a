"""Samplers: from noise to a sample, for any denoiser D(x; sigma) (see `preconditioning`).

    dpmpp-2m              DPM-Solver++(2M)     one evaluation a noise level, second order
    heun                  Heun's method        two evaluations a noise level
    ancestral             the chain of DDPM    new noise at every step
    ancestral-rescaled    the same, its noise levels those of the training

The first two follow the flow: a sample is a function of its first noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import mul

import torch
from torch import Tensor

from vemdiffuse_pipe.errors import ConfigError

Denoiser = Callable[[Tensor, float], Tensor]
Noise = Callable[[int], Tensor]  # normal deviates of a step

TRAINED_STEPS = 2000  # of the chain that published networks are trained along


@dataclass(frozen=True, slots=True)
class NoiseRange:
    """The noise levels of a flow: standard deviations of the noise, in those of the data."""

    sigma_min: float
    """The last level before zero."""
    sigma_max: float
    """The level where a sample starts."""


# Below sigma_min the noise left is half a grey level. Tuned on FIB-25, z 200 to 215, at 8 evaluations:
# 0.02 gives single samples 1.1 times the truth's fine texture, 0.05 as much, 0.1 too little.
EDM_RANGE = NoiseRange(0.05, 40.0)


def draw(
    sampler: str,
    denoise: Denoiser,
    noise: Noise,
    steps: int,
    levels: NoiseRange,
    around: Tensor | float = 0.0,
) -> Tensor:
    """One sample of the shape of the noise, from at most `steps` evaluations of `denoise`.

    `sampler`: one of `kinds.SAMPLERS`. `levels`: for the flows; ancestral chains bring their own. `around`:
    a first guess of the sample, which a flow starts at, under noise of deviation sigma_max.
    """
    if sampler in ("ancestral", "ancestral-rescaled"):
        betas = linear_betas(steps) if sampler == "ancestral" else respaced_betas(steps)
        return ancestral(denoise, noise, betas)
    start = noise(0) + around / levels.sigma_max
    if sampler == "dpmpp-2m":
        return dpmpp_2m(denoise, start, karras_sigmas(steps, levels))
    return heun(denoise, start, karras_sigmas((steps + 1) // 2, levels))


def dpmpp_2m(denoise: Denoiser, noise: Tensor, sigmas: Sequence[float]) -> Tensor:
    """One sample from unit `noise` of any shape: DPM-Solver++(2M), one evaluation a noise level.

    Lu et al. 2022, Algorithm 2, with lambda = -ln sigma, h the step in lambda, and a first-order last step
    to sigma = 0. `sigmas`: falling, ending in 0.
    """
    x = noise * sigmas[0]
    previous: Tensor | None = None
    h_previous = 0.0
    for sigma, following in pairwise(sigmas):
        x0 = denoise(x, sigma)
        if following == 0.0:
            return x0
        h = math.log(sigma / following)
        estimate = x0 if previous is None else x0 + (x0 - previous) * (h / (2 * h_previous))
        x = x * (following / sigma) - estimate * math.expm1(-h)
        previous, h_previous = x0, h
    return x


def heun(denoise: Denoiser, noise: Tensor, sigmas: Sequence[float]) -> Tensor:
    """One sample from unit `noise`: Heun's method, two evaluations a noise level but for the last, one.

    Karras et al. 2022, Algorithm 1, without churn. `sigmas`: falling, ending in 0.
    """
    x = noise * sigmas[0]
    for sigma, following in pairwise(sigmas):
        slope = (x - denoise(x, sigma)) / sigma
        euler = x + (following - sigma) * slope
        if following == 0.0:
            return euler
        x = x + (following - sigma) * 0.5 * (slope + (euler - denoise(euler, following)) / following)
    return x


def ancestral(denoise: Denoiser, noise: Noise, betas: Sequence[float]) -> Tensor:
    """One sample by the chain of Ho et al. 2020 (Eq. 7 and 11) with variances `betas`, the last one first.

    y = sqrt(gamma) x0 + sqrt(1 - gamma) noise, gamma the product of 1 - beta up to a step. `noise(0)` is
    where it starts, `noise(i)` what its i-th step adds; the last step adds none.
    """
    gammas = [1.0, *accumulate((1 - beta for beta in betas), mul)]
    y = noise(0)
    for i, t in enumerate(range(len(betas), 0, -1), 1):
        beta, gamma, before = betas[t - 1], gammas[t], gammas[t - 1]
        x0 = denoise(y / math.sqrt(gamma), math.sqrt(1 / gamma - 1))
        y = beta * math.sqrt(before) / (1 - gamma) * x0 + (1 - before) * math.sqrt(1 - beta) / (1 - gamma) * y
        if t > 1:
            y = y + math.sqrt(beta * (1 - before) / (1 - gamma)) * noise(i)
    return y


def karras_sigmas(n: int, levels: NoiseRange = EDM_RANGE, rho: float = 7.0) -> list[float]:
    """Noise levels from high to low, then zero: n + 1 numbers. Karras et al. 2022, Eq. 5.

    One level is sigma_max: a single evaluation there is the best estimate of x0 from the condition
    alone, the one-pass prediction. Raises ConfigError unless n >= 1 and 0 < sigma_min < sigma_max.
    """
    if n < 1 or not 0 < levels.sigma_min < levels.sigma_max:
        raise ConfigError(
            f"{n} evaluations from {levels.sigma_max} to {levels.sigma_min}; needed: at least 1, falling, "
            "above 0"
        )
    high, low = levels.sigma_max ** (1 / rho), levels.sigma_min ** (1 / rho)
    return [(high + i / max(1, n - 1) * (low - high)) ** rho for i in range(n)] + [0.0]


def linear_betas(n: int, first: float = 1e-4, last: float = 0.09) -> list[float]:
    """n variances, evenly spaced, rising: those that published checkpoints are sampled with.

    They are not scaled to n: under 200 steps the chain starts where noise and data still mix, and at 1000
    more than half of it lies above every noise level of the training.
    """
    return torch.linspace(first, last, n, dtype=torch.float64).tolist()


def respaced_betas(n: int) -> list[float]:
    """n variances that span the noise levels of the training, whatever n.

    The gammas are those of the training's chain (2,000 steps, betas 1e-6 to 1e-2) at n evenly spaced
    steps of it, the last one included (Nichol & Dhariwal 2021, section 4).
    """
    trained = trained_gammas()
    gammas = [trained[round(TRAINED_STEPS * i / n)] for i in range(n + 1)]
    return [1 - after / before for before, after in pairwise(gammas)]


def trained_gammas() -> list[float]:
    """Gammas of the training's chain, from 1 down: TRAINED_STEPS + 1 numbers, betas 1e-6 to 1e-2."""
    return [1.0, *accumulate((1 - beta for beta in linear_betas(TRAINED_STEPS, 1e-6, 1e-2)), mul)]
