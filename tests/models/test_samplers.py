"""Samplers against formulas, closed forms and another program's."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from vemdiffuse_pipe.models.kinds import SAMPLERS
from vemdiffuse_pipe.models.preconditioning import noise_predicting_denoiser
from vemdiffuse_pipe.models.samplers import (
    Denoiser,
    NoiseRange,
    ancestral,
    dpmpp_2m,
    draw,
    heun,
    karras_sigmas,
    linear_betas,
    respaced_betas,
)

LEVELS = NoiseRange(0.01, 40.0)


def deviates(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gaussian(deviation: float) -> Denoiser:
    """The exact denoiser of N(0, deviation^2)."""
    return lambda x, sigma: x * deviation**2 / (deviation**2 + sigma**2)


def bent(x: Tensor, sigma: float) -> Tensor:
    """A denoiser that is not linear, in x or sigma."""
    return torch.tanh(x / (1 + sigma)) * 0.7


def test_one_ancestral_step_equals_the_formula() -> None:
    """Ho et al. 2020, Eq. 7 and 11, from the noise that a network predicts, x0 clamped to [-1, 1]."""
    betas = linear_betas(5)
    gammas = np.cumprod(1 - np.array(betas))
    y, drawn = deviates(64), deviates(64, 1)

    def eps(noisy: Tensor, gamma: float) -> Tensor:
        return torch.sin(3 * noisy) * 0.5 + gamma

    x0 = ((y - math.sqrt(1 - gammas[4]) * eps(y, gammas[4])) / math.sqrt(gammas[4])).clamp(-1, 1)
    expected = (
        betas[4] * math.sqrt(gammas[3]) / (1 - gammas[4]) * x0
        + (1 - gammas[3]) * math.sqrt(1 - betas[4]) / (1 - gammas[4]) * y
        + math.sqrt(betas[4] * (1 - gammas[3]) / (1 - gammas[4])) * drawn
    )
    denoise = noise_predicting_denoiser(eps)
    seen: list[Tensor] = []

    def watched(x: Tensor, sigma: float) -> Tensor:
        seen.append(x / math.sqrt(1 + sigma**2))  # y again
        return denoise(x, sigma).clamp(-1, 1)

    ancestral(watched, lambda step: drawn if step else y, betas)
    assert torch.allclose(seen[0], y, atol=1e-12)
    assert torch.allclose(seen[1], expected, atol=1e-12)


def test_an_ancestral_chain_asks_for_the_noise_of_every_step_but_the_last() -> None:
    asked: list[int] = []

    def noise(step: int) -> Tensor:
        asked.append(step)
        return deviates(8, step)

    ancestral(bent, noise, linear_betas(6))
    assert asked == [0, 1, 2, 3, 4, 5]


def test_ancestral_betas_are_the_published_ones_and_not_scaled() -> None:
    for n in (1000, 200, 10):
        betas = linear_betas(n)
        assert (len(betas), betas[0], betas[-1]) == (n, 1e-4, 0.09)
        assert np.allclose(np.diff(betas), (0.09 - 1e-4) / (n - 1))


@pytest.mark.parametrize("n", [1, 10, 200, 1000])
def test_respaced_betas_span_the_noise_levels_of_the_training(n: int) -> None:
    trained = np.cumprod(1 - np.linspace(1e-6, 1e-2, 2000))
    gammas = np.cumprod(1 - np.array(respaced_betas(n)))
    assert gammas[-1] == pytest.approx(trained[-1], rel=1e-9)
    assert math.sqrt(1 / gammas[-1] - 1) == pytest.approx(150, rel=0.02)
    assert all(np.abs(trained / gamma - 1).min() < 1e-9 for gamma in gammas)


@pytest.mark.parametrize("betas", [linear_betas(1000), respaced_betas(1000)])
def test_an_ancestral_chain_draws_the_distribution_of_its_denoiser(betas: list[float]) -> None:
    drawn = ancestral(gaussian(0.3), lambda step: deviates(20_000, step), betas)
    assert float(drawn.std()) == pytest.approx(0.3, rel=0.03)
    assert abs(float(drawn.mean())) < 0.01


Solver = Callable[[Denoiser, Tensor, list[float]], Tensor]


@pytest.mark.parametrize("solver", [heun, dpmpp_2m])
def test_a_flow_converges_to_the_gaussian_solution_at_second_order(solver: Solver) -> None:
    """Halving the step quarters the error. The levels reach so low that the last step adds nothing."""
    noise = deviates(1000)
    end = noise * 40.0 / math.sqrt(1 + 40.0**2)

    def error(n: int) -> float:
        sigmas = [40.0 * (1e-5 / 40.0) ** (i / (n - 1)) for i in range(n)] + [0.0]
        return float((solver(gaussian(1.0), noise, sigmas) - end).abs().max())

    errors = [error(n) for n in (40, 80, 160, 320)]
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert min(orders) > 1.8
    assert max(orders) < 2.3


def test_a_noise_predictor_becomes_the_denoiser_of_its_noise_levels() -> None:
    x0, noise, sigma = deviates(50), deviates(50, 1), 0.7
    asked: list[float] = []

    def exact(noisy: Tensor, gamma: float) -> Tensor:
        asked.append(gamma)
        return (noisy - math.sqrt(gamma) * x0) / math.sqrt(1 - gamma)

    assert torch.allclose(noise_predicting_denoiser(exact)(x0 + sigma * noise, sigma), x0, atol=1e-12)
    assert asked == [1 / (1 + sigma**2)]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 7, 10])
def test_no_sampler_evaluates_more_often_than_it_may(sampler: str, steps: int) -> None:
    n_evaluations = 0

    def counted(x: Tensor, sigma: float) -> Tensor:
        nonlocal n_evaluations
        n_evaluations += 1
        return bent(x, sigma)

    draw(sampler, counted, lambda step: deviates(8, step), steps, LEVELS)
    assert steps - 1 <= n_evaluations <= steps


@pytest.mark.filterwarnings("ignore")  # of their own
@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "HeunDiscreteScheduler"])
def test_the_flows_agree_with_those_of_diffusers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same levels, the same network that predicts the noise in sqrt(gamma) x0 + sqrt(1 - gamma) noise."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import diffusers  # takes seconds

    n, noise = 12, deviates(200)
    sigmas = karras_sigmas(n, LEVELS)
    scheduler, x, scaled = theirs(diffusers, name, sigmas, noise)
    for t in scheduler.timesteps:
        sigma = float(scheduler.sigmas[scheduler.step_index or 0])
        clean = bent(x * (math.sqrt(1 + sigma**2) if scaled else 1.0), sigma)
        level = x * (math.sqrt(1 + sigma**2) if scaled else 1.0)
        x = scheduler.step((level - clean) / sigma, t, x).prev_sample
    ours = (dpmpp_2m if scaled else heun)(bent, noise, sigmas)
    assert float((ours - x).abs().max()) < 1e-5


def theirs(diffusers: object, name: str, sigmas: list[float], noise: Tensor) -> tuple[object, Tensor, bool]:
    """Their solver at our levels, where it starts, and whether its x is scaled by sqrt(gamma)."""
    if name == "HeunDiscreteScheduler":
        scheduler = diffusers.HeunDiscreteScheduler()
        scheduler.set_timesteps(len(sigmas) - 1)
        doubled = [sigmas[0], *(s for s in sigmas[1:-1] for _ in range(2)), 0.0]
        scheduler.sigmas = torch.tensor(doubled, dtype=torch.float64)
        return scheduler, noise * sigmas[0], False
    scheduler = diffusers.DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint", final_sigmas_type="zero"
    )
    scheduler.set_timesteps(len(sigmas) - 1)
    scheduler.sigmas = torch.tensor(sigmas, dtype=torch.float64)
    return scheduler, noise * sigmas[0] / math.sqrt(1 + sigmas[0] ** 2), True
