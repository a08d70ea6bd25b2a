"""Noise belongs to the voxel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vemdiffuse_pipe.models.noise import degrees_of_freedom, philox4x32, voxel_noise

# Random123's known answers for philox4x32-10: counter, key -> output.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    a, b, c, d = (torch.tensor([v]) for v in counter)
    assert tuple(int(w) for w in philox4x32((a, b, c, d), key)) == expected


def _window(
    seed: int, sample: int, z: tuple[int, int], y: tuple[int, int], x: tuple[int, int]
) -> torch.Tensor:
    return voxel_noise(seed, sample, torch.arange(*z), (y[0], x[0]), (y[1] - y[0], x[1] - x[0]))


@settings(max_examples=50)
@given(st.data(), st.integers(0, 2**63), st.integers(0, 40), st.integers(0, 2**31 - 64))
def test_a_voxel_has_the_same_noise_in_every_window(
    data: st.DataObject, seed: int, sample: int, x0: int
) -> None:
    span = st.tuples(st.integers(0, 20), st.integers(1, 19)).map(lambda s: (s[0], s[0] + s[1]))
    z, y, x = (data.draw(span) for _ in range(3))
    whole = _window(seed, sample, (0, 40), (5, 45), (x0, x0 + 40))
    part = _window(seed, sample, z, (5 + y[0], 5 + y[1]), (x0 + x[0], x0 + x[1]))
    assert torch.equal(part, whole[slice(*z), slice(*y), slice(*x)])


def test_seed_sample_step_plane_row_and_column_each_change_the_noise() -> None:
    planes, start, shape = torch.arange(2), (0, 0), (4, 16)
    base = voxel_noise(1, 0, planes, start, shape)
    others = [
        voxel_noise(2, 0, planes, start, shape),
        voxel_noise(1 + 2**32, 0, planes, start, shape),
        voxel_noise(1, 1, planes, start, shape),
        voxel_noise(1, 0, planes, start, shape, step=1),
        voxel_noise(1, 0, planes + 1, start, shape),
        voxel_noise(1, 0, planes, (1, 0), shape),
        voxel_noise(1, 0, planes, (0, 1), shape),
        voxel_noise(1, 0, planes, (0, 8), shape),
    ]
    assert all((base == other).float().mean() < 0.01 for other in others)


def test_samples_are_antithetic_pairs_that_are_independent_of_each_other() -> None:
    a, b, c, d = (_window(5, k, (0, 8), (0, 64), (0, 64)) for k in range(4))
    assert torch.equal(a, -b)
    assert torch.equal(c, -d)
    assert abs(float((a * c).mean())) < 5 / np.sqrt(a.numel())


@pytest.mark.parametrize("n_samples", [2, 3, 4, 5, 8])
def test_the_spread_of_samples_is_that_of_one_sample(n_samples: int) -> None:
    draws = torch.stack([_window(9, k, (0, 64), (0, 64), (0, 64)) for k in range(n_samples)]).double()
    squares = (draws - draws.mean(0)).square().sum(0) / degrees_of_freedom(n_samples)
    assert float(squares.mean()) == pytest.approx(1, abs=0.02)


def test_noise_is_standard_normal_and_white() -> None:
    noise = _window(7, 3, (0, 16), (0, 256), (0, 256)).double().numpy()
    assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
    assert abs(noise.var() - 1) < 6 / np.sqrt(noise.size)
    assert stats.kstest(noise.ravel()[::7], "norm").pvalue > 1e-3
    for shift in [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 8), (0, 0, 2)]:
        neighbour = np.roll(noise, shift, axis=(0, 1, 2))
        assert abs((noise * neighbour).mean()) < 5 / np.sqrt(noise.size)
