"""The lean network: all planes of a gap in one pass, exact under tiling, for any ratio.

    sections (2) --conv--+                                          +-> plane 1
                         +-> 1/2 res -> 1/4 res -> 1/8 res -> back -+-> ...
    noisy planes (n) ----+      (U-shaped, 3 x 3 convolutions)      +-> plane n
       kernels made from each plane's position                kernels made from each plane's position

Planes enter and leave through kernels that are functions of their continuous position t = j / r, so
one network serves any number of planes, anywhere in the gap. Normalisation is over channels at each
pixel, there is no attention and no pooling over space: what a voxel becomes depends on its
surroundings of `LeanNetwork.context_px` pixels and on nothing else.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vemdiffuse_pipe.models.sizes.lean import LeanConfig as LeanConfig


class LeanNetwork(nn.Module):
    """F of EDM Eq. 7 for the residual of a gap: see `forward`.

    `difficulty`: a second set of kernels out, which training alone uses; no checkpoint holds it.
    """

    def __init__(self, config: LeanConfig = LeanConfig(), *, difficulty: bool = False) -> None:  # noqa: B008
        super().__init__()
        self.config = config
        first, embedding = config.channels[0], config.n_embedding
        self.basis = _mlp(_N_POSITION_FEATURES, embedding, config.n_basis)
        self.embed = _mlp(_N_LEVEL_FEATURES, embedding, embedding)
        self.sections_in = nn.Conv2d(8, first, 3, padding=1)
        self.planes_in = nn.Parameter(
            torch.randn(config.n_basis, first * 4, 3, 3) / math.sqrt(36 * config.n_basis)
        )
        self.planes_out = nn.Parameter(torch.zeros(config.n_basis, 4 * first, 3, 3))
        if difficulty:
            self.difficulty_out = nn.Parameter(torch.zeros_like(self.planes_out))
        self.down = nn.ModuleList(_stage(c, config) for c in config.channels)
        self.up = nn.ModuleList(_stage(c, config) for c in config.channels[:-1])
        self.shrink = nn.ModuleList(nn.Conv2d(4 * a, b, 1) for a, b in pairwise(config.channels))
        self.grow = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in pairwise(config.channels))

    @property
    def context_px(self) -> int:
        """How far, in pixels, an input can lie from an output that it changes."""
        return self.config.context_px

    @property
    def multiple_px(self) -> int:
        """Tiles must be a multiple of this, in pixels, and lie on multiples of it."""
        return self.config.multiple_px

    @property
    def decoder(self) -> tuple[str, ...]:
        """Prefixes of the names of the parameters of the bottleneck and of all that follows it."""
        return f"down.{len(self.config.channels) - 1}.", "up.", "grow.", "planes_out", "difficulty_out"

    def on(self, device: str | torch.device) -> LeanNetwork:
        """Itself, moved to `device`, its kernels laid out channels-last."""
        self.to(device)
        for parameter in (p for p in self.parameters() if p.dim() == 4):
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        return self

    def forward(
        self,
        noisy: Tensor,
        sections: Tensor,
        positions: Tensor,
        ratio: float,
        c_noise: Tensor,
        n_heads: int = 1,
    ) -> Tensor:
        """The raw output for every plane: (b, n, y, x); with two heads the difficulty follows: (b, 2n, y, x).

        `noisy`: (b, n, y, x), scaled to deviation 1; `sections`: (b, 2, y, x), standardised grey;
        `positions`: (n,) in (0, 1); `ratio`: r; `c_noise`: (b,). y and x are multiples of `multiple_px`.
        """
        dtype = self.planes_in.dtype
        basis = self.basis(_position_features(positions, ratio).to(dtype))
        emb = F.silu(self.embed(_level_features(c_noise, ratio).to(dtype)))
        x = self.sections_in(F.pixel_unshuffle(sections, 2)) + self._enter(noisy, basis)
        skips = []
        for level, stage in enumerate(self.down):
            if level:
                x = self.shrink[level - 1](F.pixel_unshuffle(x, 2))
            x = _through(stage, x, emb)
            skips.append(x)
        for level in reversed(range(len(self.up))):
            x = skips[level] + F.pixel_shuffle(self.grow[level](x), 2)
            x = _through(self.up[level], x, emb)
        heads = (self.planes_out, self.difficulty_out) if n_heads == 2 else (self.planes_out,)
        return torch.cat([self._leave(x, basis, kernels) for kernels in heads], dim=1)

    def _enter(self, noisy: Tensor, basis: Tensor) -> Tensor:
        kernel = torch.einsum("nb,bcsij->cnsij", basis, self.planes_in.unflatten(1, (-1, 4))).flatten(1, 2)
        return F.conv2d(F.pixel_unshuffle(noisy, 2), kernel / math.sqrt(len(basis)), padding=1)

    def _leave(self, x: Tensor, basis: Tensor, kernels: Tensor) -> Tensor:
        kernel = torch.einsum("nb,bscij->nscij", basis, kernels.unflatten(1, (4, -1))).flatten(0, 1)
        return F.pixel_shuffle(F.conv2d(_normalise(x), kernel, padding=1), 2)


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(film(norm(x))))))): the noise level and the ratio enter by FiLM."""

    def __init__(self, channels: int, n_embedding: int) -> None:
        super().__init__()
        self.film = nn.Linear(n_embedding, 2 * channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in (*self.film.parameters(), *self.second.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """(b, c, y, x) -> the same."""
        scale, shift = self.film(emb)[:, :, None, None].chunk(2, dim=1)
        h = self.first(F.silu(torch.addcmul(shift, _normalise(x), 1 + scale)))
        out: Tensor = x + self.second(F.silu(_normalise(h)))
        return out


_N_POSITION_FEATURES, _N_LEVEL_FEATURES = 14, 33


def _position_features(positions: Tensor, ratio: float) -> Tensor:
    angles = math.pi * positions[:, None] * torch.arange(1, 7, device=positions.device)
    ratios = torch.full_like(positions[:, None], math.log2(ratio))
    return torch.cat([angles.cos(), angles.sin(), positions[:, None] - 0.5, ratios], dim=1)


def _level_features(c_noise: Tensor, ratio: float) -> Tensor:
    frequencies = torch.exp(torch.linspace(0.0, math.log(32.0), 16, device=c_noise.device))
    angles = c_noise[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin(), torch.full_like(angles[:, :1], math.log2(ratio))], dim=1)


def _mlp(n_in: int, n_hidden: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, n_hidden), nn.SiLU(), nn.Linear(n_hidden, n_out))


def _stage(channels: int, config: LeanConfig) -> nn.ModuleList:
    return nn.ModuleList(ResidualBlock(channels, config.n_embedding) for _ in range(config.n_blocks))


def _through(stage: nn.Module, x: Tensor, emb: Tensor) -> Tensor:
    assert isinstance(stage, nn.ModuleList)
    for block in stage:
        x = block(x, emb)
    return x


def _normalise(x: Tensor) -> Tensor:
    """Mean 0 and deviation 1 over the channels of each pixel: nothing is shared between pixels."""
    return F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],)).permute(0, 3, 1, 2)
