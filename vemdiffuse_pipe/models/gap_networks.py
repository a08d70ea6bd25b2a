"""The two networks of the default model: an estimator and a sampler, for gaps of any width.

    sections (4) --conv--+                                          +-> plane 1
                         +-> 1/2 res -> 1/4 res -> 1/8 res -> back -+-> ...
    noisy planes (n) ----+   (`Trunk`; conditions enter by FiLM)    +-> plane n
      |  (sampler only)                                                   ^
      +----- a path of its own for each plane, at 1/2 resolution ---------+

Planes enter and leave through kernels that are functions of their continuous position t in the gap. Both
are told what was cut and what is wanted (`conditions`): width of the gap, pixel size, thickness of sections
and of planes.

The estimator answers once: best estimate and the logarithm of its variance. The sampler is the network of a
diffusion model. Without its second way noise of a plane reaches its output through channels that all planes
share, and in wide gaps part of it stays in the sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vemdiffuse_pipe.models.blocks import (
    N_POSITION_FEATURES,
    Trunk,
    mlp,
    modulated,
    position_features,
    waves,
)
from vemdiffuse_pipe.models.sizes.gap import OWN_CHANNELS, EstimatorSizes, SamplerSizes

N_CONDITIONS = 5
PIXELS_NM, GAPS_PX = (4.0, 20.0), (1.8, 30.0)
_N_CONDITION_FEATURES = N_CONDITIONS + 2 * 4 * N_CONDITIONS
_N_LEVEL_FEATURES = 32


class EstimatorNetwork(nn.Module):
    """Best estimate of the planes of a gap and the logarithm of its variance, in one pass: see `forward`."""

    def __init__(self, config: EstimatorSizes = EstimatorSizes()) -> None:  # noqa: B008
        super().__init__()
        self.config = config
        first, embedding = config.channels[0], config.n_embedding
        self.basis = mlp(N_POSITION_FEATURES, embedding, config.n_basis)
        self.embed = mlp(_N_CONDITION_FEATURES, embedding, embedding)
        self.sections_in = nn.Conv2d(4 * (2 + 2 * config.reach), first, 3, padding=1)
        self.trunk = Trunk(config.channels, config.n_blocks, embedding)
        self.film_out = _zeroed(nn.Linear(embedding, 2 * first))
        self.mean_out = nn.Parameter(torch.zeros(config.n_basis, 4 * first, 3, 3))
        self.spread_out = nn.Parameter(torch.zeros(config.n_basis, 4 * first, 3, 3))
        self.taps = mlp(N_POSITION_FEATURES + _N_CONDITION_FEATURES, 64, 2 + 2 * config.reach)
        _zeroed(self.taps[2])

    @property
    def decoder(self) -> tuple[str, ...]:
        """How the names of the parameters of the bottleneck and of what follows it begin."""
        return (*_trunk_decoder(self.config.channels), "film_out", "mean_out", "spread_out", "taps.")

    def forward(
        self, sections: Tensor, positions: Tensor, ratio: float, conditions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(residual, logarithm of its variance) of every plane: (b, n, y, x) each.

        `sections`: (b, 2 + 2 * reach, y, x), standardised grey; `positions`: (n,) in (0, 1); `ratio`: r;
        `conditions`: (b, N_CONDITIONS), as `condition_values` gives them.
        """
        at, told = (
            position_features(positions, ratio).to(self.mean_out.dtype),
            _condition_features(conditions),
        )
        basis, emb = self.basis(at), F.silu(self.embed(told))
        x = self.trunk(self.sections_in(F.pixel_unshuffle(sections, 2)), emb)
        x = modulated(x, self.film_out(emb))
        mean = _leave(x, basis, self.mean_out).float() + self._weighted(sections, at, told)
        return mean, _leave(x, basis, self.spread_out)

    def _weighted(self, sections: Tensor, at: Tensor, told: Tensor) -> Tensor:
        """Sections at each pixel, by weights of position and conditions: (b, n, y, x).

        What is linear along z, as in cubic interpolation or where thick sections are taken apart, need not
        pass the trunk, which normalises it.
        """
        b, n = len(told), len(at)
        inputs = torch.cat([at.expand(b, -1, -1), told[:, None].expand(-1, n, -1)], dim=2)
        weights = self.taps(inputs).float()[..., None, None]
        total: Tensor = weights[:, :, 0] * sections[:, :1]
        for i in range(1, sections.shape[1]):
            total = total + weights[:, :, i] * sections[:, i : i + 1]
        return total


class SamplerNetwork(nn.Module):
    """F of EDM Eq. 7 for the residual of all planes of a gap: see `forward`."""

    def __init__(self, config: SamplerSizes = SamplerSizes()) -> None:  # noqa: B008
        super().__init__()
        self.config = config
        first, embedding, n_basis = config.channels[0], config.n_embedding, config.n_basis
        self.basis = mlp(N_POSITION_FEATURES, embedding, n_basis)
        self.embed = mlp(_N_CONDITION_FEATURES + _N_LEVEL_FEATURES, embedding, embedding)
        self.sections_in = nn.Conv2d(4 * (2 + 2 * config.reach), first, 3, padding=1)
        self.planes_in = nn.Parameter(torch.randn(n_basis, first * 4, 3, 3) / math.sqrt(36 * n_basis))
        self.trunk = Trunk(config.channels, config.n_blocks, embedding)
        self.film_out = _zeroed(nn.Linear(embedding, 2 * first))
        self.planes_out = nn.Parameter(torch.zeros(n_basis, 4 * first, 3, 3))
        self.own = OwnPath(config)

    @property
    def decoder(self) -> tuple[str, ...]:
        """How the names of the parameters of the bottleneck and of what follows it begin."""
        return (*_trunk_decoder(self.config.channels), "film_out", "planes_out", "own.")

    def forward(
        self,
        noisy: Tensor,
        sections: Tensor,
        positions: Tensor,
        ratio: float,
        conditions: Tensor,
        c_noise: Tensor,
    ) -> Tensor:
        """The raw output for every plane: (b, n, y, x).

        `noisy`: (b, n, y, x), scaled to deviation 1; `c_noise`: (b,); the rest as of `EstimatorNetwork`.
        """
        basis = self.basis(position_features(positions, ratio).to(self.planes_in.dtype))
        features = torch.cat([_condition_features(conditions), waves(c_noise, 16, 32.0)], dim=1)
        emb = F.silu(self.embed(features))
        x = self.sections_in(F.pixel_unshuffle(sections, 2)) + self._enter(noisy, basis)
        x = modulated(self.trunk(x, emb), self.film_out(emb))
        out: Tensor = _leave(x, basis, self.planes_out) + self.own(noisy, x, basis, emb)
        return out

    def _enter(self, noisy: Tensor, basis: Tensor) -> Tensor:
        kernel = torch.einsum("nb,bcsij->cnsij", basis, self.planes_in.unflatten(1, (-1, 4))).flatten(1, 2)
        return F.conv2d(F.pixel_unshuffle(noisy, 2), kernel / math.sqrt(len(basis)), padding=1)


class OwnPath(nn.Module):
    """The way of one plane past the trunk: noise in, what the trunk knows of that plane, correction out."""

    def __init__(self, config: SamplerSizes) -> None:
        super().__init__()
        first = config.channels[0]
        self.noisy_in = nn.Conv2d(4, OWN_CHANNELS, 3, padding=1)
        self.trunk_in = nn.Parameter(
            torch.randn(config.n_basis, OWN_CHANNELS * first, 1, 1) / math.sqrt(first * config.n_basis)
        )
        self.film = _zeroed(nn.Linear(config.n_embedding, 2 * OWN_CHANNELS))
        self.middle = nn.Conv2d(OWN_CHANNELS, OWN_CHANNELS, 3, padding=1)
        self.out = _zeroed(nn.Conv2d(OWN_CHANNELS, 4, 3, padding=1))

    def forward(self, noisy: Tensor, x: Tensor, basis: Tensor, emb: Tensor) -> Tensor:
        """Planes (b, n, y, x) and features (b, c, y / 2, x / 2) -> (b, n, y, x)."""
        n = noisy.shape[1]
        halves = F.pixel_unshuffle(noisy.flatten(0, 1)[:, None], 2)
        kernel = torch.einsum("nb,bocij->nocij", basis, self.trunk_in.unflatten(1, (OWN_CHANNELS, -1)))
        told = F.conv2d(x, kernel.flatten(0, 1)).unflatten(1, (n, OWN_CHANNELS)).flatten(0, 1)
        h = self.noisy_in(halves.contiguous(memory_format=torch.channels_last)) + told
        h = F.silu(modulated(h, self.film(emb).repeat_interleave(n, dim=0)))
        h = self.out(F.silu(self.middle(h)))
        out: Tensor = F.pixel_shuffle(h, 2)[:, 0].unflatten(0, (-1, n))
        return out


def condition_values(
    gap_px: float, pixel_nm: float, section_fraction: float, plane_fraction: float
) -> tuple[float, ...]:
    """The conditions of a gap as networks are given them: N_CONDITIONS numbers.

    `gap_px`: width of the gap in pixels; `section_fraction`, `plane_fraction`: thickness of sections and of
    planes as fractions of the gap. Nothing is thinner than a pixel or thicker than the gap; what lies outside
    `PIXELS_NM` and `GAPS_PX`, which networks were trained on, is told as the nearest that does not.
    """
    gap_px, pixel_nm = _clamped(gap_px, GAPS_PX), _clamped(pixel_nm, PIXELS_NM)
    section, plane = (_clamped(f, (1 / gap_px, 1.0)) for f in (section_fraction, plane_fraction))
    return (
        math.log2(gap_px) - 2.5,
        math.log2(pixel_nm / 10),
        section,
        plane,
        math.log2(section * gap_px) / 2,
    )


def _trunk_decoder(channels: Sequence[int]) -> tuple[str, ...]:
    return f"trunk.down.{len(channels) - 1}.", "trunk.up.", "trunk.grow."


def _clamped(value: float, limits: tuple[float, float]) -> float:
    return min(max(value, limits[0]), limits[1])


def _condition_features(conditions: Tensor) -> Tensor:
    """(b, N_CONDITIONS) -> (b, _N_CONDITION_FEATURES): the values, and waves of each."""
    waved = waves(conditions.flatten(), 4, 6.0).unflatten(0, conditions.shape).flatten(1)
    return torch.cat([conditions, waved], dim=1)


def _leave(x: Tensor, basis: Tensor, kernels: Tensor) -> Tensor:
    kernel = torch.einsum("nb,bscij->nscij", basis, kernels.unflatten(1, (4, -1))).flatten(0, 1)
    return F.pixel_shuffle(F.conv2d(x, kernel, padding=1), 2)


def _zeroed(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
