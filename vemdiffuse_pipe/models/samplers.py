"""Samplers: from noise to a sample, for any denoiser of continuous noise levels.

A denoiser D(x; sigma) estimates x0 from x = x0 + sigma * noise. A network that predicts the noise in
sqrt(gamma) x0 + sqrt(1 - gamma) noise is one as well (Karras et al. 2022, section 3):

    gamma = 1 / (1 + sigma^2)        D(x; sigma) = x - sigma * eps(sqrt(gamma) x, gamma)

`dpmpp-2m` and `heun` follow the flow: a sample is a function of its first noise. `ancestral` draws new
noise at every step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import mul

import torch
from torch import Tensor

from vemdiffuse_pipe.models.edm import Denoiser, dpmpp_2m, karras_sigmas
from vemdiffuse_pipe.models.protocol import Noise


@dataclass(frozen=True, slots=True)
class NoiseRange:
    """Where a flow begins and ends: standard deviations of the noise, in those of the data."""

    sigma_min: float
    sigma_max: float


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
    a first guess of the sample, which a flow begins at, under noise of deviation sigma_max.
    """
    if sampler in ("ancestral", "ancestral-rescaled"):
        betas = linear_betas(steps) if sampler == "ancestral" else respaced_betas(steps)
        return ancestral(denoise, noise, betas)
    begin = noise(0) + around / levels.sigma_max
    if sampler == "dpmpp-2m":
        return dpmpp_2m(denoise, begin, karras_sigmas(steps, levels.sigma_min, levels.sigma_max))
    return heun(denoise, begin, karras_sigmas((steps + 1) // 2, levels.sigma_min, levels.sigma_max))


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


TRAINED_STEPS = 2000


def trained_gammas() -> list[float]:
    """Gammas of the training's chain, from 1 down: TRAINED_STEPS + 1 numbers, betas 1e-6 to 1e-2."""
    return [1.0, *accumulate((1 - beta for beta in linear_betas(TRAINED_STEPS, 1e-6, 1e-2)), mul)]


def denoiser_of_noise_predictor(predict: Denoiser) -> Denoiser:
    """D(x; sigma) of a network that predicts the noise: `predict(sqrt(gamma) x, gamma)`."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        gamma = 1 / (1 + sigma**2)
        return x - sigma * predict(math.sqrt(gamma) * x, gamma)

    return denoise
