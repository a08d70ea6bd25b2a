"""From a network to a denoiser D(x; sigma), which estimates x0 from x = x0 + sigma * noise.

Karras et al. 2022 (EDM): a network that is preconditioned answers in `edm_denoiser`, Eq. 7; one that
predicts the noise in sqrt(gamma) x0 + sqrt(1 - gamma) noise in `noise_predicting_denoiser`, section 3.
A clean sample x0 has deviation 1: models scale their targets so.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vemdiffuse_pipe.models.samplers import Denoiser


def preconditioning(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(c_skip, c_out, c_in, c_noise) for noise levels `sigma`; EDM Table 1 with sigma_data = 1."""
    total = sigma**2 + 1.0
    return 1.0 / total, sigma / total.sqrt(), 1.0 / total.sqrt(), sigma.log() / 4.0


def edm_denoiser(network: Callable[[Tensor, Tensor], Tensor]) -> Denoiser:
    """D(x; sigma) = c_skip x + c_out F(c_in x, c_noise): EDM Eq. 7, in float32.

    `network`: F, of the scaled input (b, n, y, x) and of c_noise (b,), in any precision.
    """

    def denoise(x: Tensor, sigma: float) -> Tensor:
        levels = torch.full((len(x), 1, 1, 1), sigma, device=x.device)
        c_skip, c_out, c_in, c_noise = preconditioning(levels)
        x0: Tensor = c_skip * x + c_out * network(c_in * x, c_noise.flatten()).float()
        return x0

    return denoise


def noise_predicting_denoiser(predict: Denoiser) -> Denoiser:
    """D(x; sigma) of a network that predicts the noise: `predict(sqrt(gamma) x, gamma)`.

    gamma = 1 / (1 + sigma^2)        D(x; sigma) = x - sigma * predict(sqrt(gamma) x, gamma)
    """

    def denoise(x: Tensor, sigma: float) -> Tensor:
        gamma = 1 / (1 + sigma**2)
        return x - sigma * predict(math.sqrt(gamma) * x, gamma)

    return denoise
