"""Noise that belongs to the voxel: a pure function of (seed, sample, plane, y, x, step).

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") in integer arithmetic,
so CPU and GPU give the same bits. One counter serves eight neighbours along x:

    counter = (x // 8, y, plane, sample // 2 << 16 | step)        key = seed (64 bits)
    4 words of 32 bits = 8 halves of 16 bits -> 8 normal deviates, for x % 8 = 0 .. 7

A half becomes a normal deviate through a table of 65,536 quantiles, never through log and cosine:
libraries round those differently, a table not. Largest deviate 4.3; mean 0 and variance 1 exactly
to float32.

Samples are antithetic pairs (Hammersley & Morton 1956): sample 2 m + 1 has the noise of sample 2 m,
negated. Each is as normal as any other, but what a pair's noise adds to its mean to first order cancels,
so the mean of two comes near the best estimate, where the mean of two independent draws stays 1.8 dB below.
"""

from __future__ import annotations

from functools import cache
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

LANES = 8
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Ten rounds of Philox4x32: four words for every counter, as int64 holding 32 bits.

    `counter`: four int64 tensors that broadcast, each in 0 .. 2**32 - 1; `key`: two such integers.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def voxel_noise(
    seed: int,
    sample: int,
    planes: Tensor,
    start_yx: tuple[int, int],
    shape_yx: tuple[int, int],
    *,
    step: int = 0,
) -> Tensor:
    """Normal deviates of a window: (n, y, x) float32 on the device of `planes`.

    `planes`: (n,) int64, plane numbers of the output; `start_yx`: first voxel, not negative;
    `sample`, `step`: below 2**16; `seed`: below 2**64.
    """
    (y0, x0), (ny, nx) = start_yx, shape_yx
    first, stop = x0 // LANES, -(-(x0 + nx) // LANES)
    x = torch.arange(first, stop, device=planes.device)
    y = torch.arange(y0, y0 + ny, device=planes.device)[:, None]
    last = torch.tensor(sample // 2 << 16 | step, device=planes.device)
    words = philox4x32((x, y, planes[:, None, None], last), (seed & _WORD, seed >> 32))
    halves = torch.stack([h for w in torch.broadcast_tensors(*words) for h in (w & 0xFFFF, w >> 16)], dim=-1)
    start = x0 - first * LANES
    noise = _quantiles(planes.device)[halves.flatten(-2)[..., start : start + nx]]
    return -noise if sample % 2 else noise


def degrees_of_freedom(n_samples: int) -> float:
    """What squared deviations of `n_samples` from their mean are divided by: the variance of one sample.

    The mean of antithetic pairs has no error to first order, so nothing is taken off for it: K when K is
    even, K - 1 / K when one sample has no partner (and 0 for a single one).
    """
    return n_samples if n_samples % 2 == 0 else n_samples - 1 / n_samples


def _multiply(a: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """High and low word of a 32 x 32 bit product; int64 wraps, which leaves both words right."""
    product = a * m
    return (product >> 32) & _WORD, product & _WORD


@cache
def _quantiles(device: torch.device) -> Tensor:
    table = np.array([NormalDist().inv_cdf((i + 0.5) / 65536) for i in range(65536)])
    return torch.from_numpy((table / table.std()).astype(np.float32)).to(device)
