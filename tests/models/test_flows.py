"""The sampler against closed forms."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.models.preconditioning import preconditioning
from vemdiffuse_pipe.models.samplers import EDM_RANGE, NoiseRange, dpmpp_2m, karras_sigmas
from vemdiffuse_pipe.training.objectives.draws import draw_training_sigmas


def _gaussian(deviation: float) -> tuple[object, object]:
    """The exact denoiser of N(0, deviation^2), and the exact end of the probability flow."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return x * deviation**2 / (deviation**2 + sigma**2)

    def end(noise: Tensor, sigma_max: float) -> Tensor:
        return noise * sigma_max * deviation / math.sqrt(deviation**2 + sigma_max**2)

    return denoise, end


def test_noise_levels_fall_from_sigma_max_to_sigma_min_to_zero() -> None:
    sigmas = karras_sigmas(8)
    assert sigmas[0] == pytest.approx(40.0)
    assert sigmas[-2] == pytest.approx(0.05)
    assert sigmas[-1] == 0.0
    assert all(a > b for a, b in pairwise(sigmas))
    assert karras_sigmas(1) == [pytest.approx(40.0), 0.0]


@pytest.mark.parametrize(
    ("n", "levels"), [(0, EDM_RANGE), *((5, NoiseRange(*r)) for r in ((1.0, 0.5), (0.0, 1.0), (-1.0, 1.0)))]
)
def test_impossible_noise_levels_are_refused(n: int, levels: NoiseRange) -> None:
    with pytest.raises(ConfigError):
        karras_sigmas(n, levels)


def test_the_solver_converges_to_the_gaussian_solution_at_second_order() -> None:
    """Down to a small sigma the remaining error of the last step is negligible; halving h quarters it."""
    denoise, end = _gaussian(1.0)
    noise = torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def error(n: int) -> float:
        sigmas = [40.0 * (1e-4 / 40.0) ** (i / (n - 1)) for i in range(n)] + [0.0]
        return float((dpmpp_2m(denoise, noise, sigmas) - end(noise, 40.0)).abs().max())  # type: ignore[operator, arg-type]

    errors = [error(n) for n in (20, 40, 80, 160)]
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert min(orders[1:]) > 1.7
    assert errors[-1] < 0.005


def test_one_evaluation_is_the_denoiser_at_sigma_max() -> None:
    denoise, _ = _gaussian(0.5)
    noise = torch.ones(3)
    assert torch.equal(dpmpp_2m(denoise, noise, karras_sigmas(1)), denoise(noise * karras_sigmas(1)[0], 40.0))  # type: ignore[operator, arg-type]


def test_the_solver_agrees_with_a_plain_loop_of_the_published_algorithm() -> None:
    """Lu et al. 2022, Algorithm 2, written once more with its own symbols and alpha = 1."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return torch.tanh(x / (1 + sigma)) * 0.7

    noise = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    sigmas = karras_sigmas(9)
    lambdas = [-math.log(s) for s in sigmas[:-1]]
    x = noise * sigmas[0]
    outputs: list[Tensor] = []
    for i in range(1, 9):
        outputs.append(denoise(x, sigmas[i - 1]))
        h = lambdas[i] - lambdas[i - 1]
        d = outputs[-1]
        if i > 1:
            r = (lambdas[i - 1] - lambdas[i - 2]) / h
            d = (1 + 1 / (2 * r)) * outputs[-1] - 1 / (2 * r) * outputs[-2]
        x = sigmas[i] / sigmas[i - 1] * x - (math.exp(-h) - 1) * d
    assert torch.allclose(dpmpp_2m(denoise, noise, sigmas), denoise(x, sigmas[8]), atol=1e-12)


def test_preconditioning_keeps_input_and_target_at_unit_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 200_000, generator=generator, dtype=torch.float64)
    for sigma in (0.05, 1.0, 20.0):
        c_skip, c_out, c_in, _ = preconditioning(torch.tensor(sigma, dtype=torch.float64))
        x = clean + sigma * noise
        assert float((c_in * x).var()) == pytest.approx(1, abs=0.02)
        assert float(((clean - c_skip * x) / c_out).var()) == pytest.approx(1, abs=0.02)


def test_one_training_level_in_eight_is_sigma_max() -> None:
    sigmas = draw_training_sigmas(20_000, torch.Generator().manual_seed(0))
    assert float((sigmas == 40.0).float().mean()) == pytest.approx(0.125, abs=0.01)
    assert float(sigmas[sigmas < 40].median()) == pytest.approx(math.exp(-0.5), rel=0.05)
