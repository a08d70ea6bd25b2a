"""Building blocks of networks that are exact under tiling.

Normalisation is over the channels of each pixel; there is no attention and no pooling over space. What a
pixel becomes depends on its surroundings within the receptive field and on nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

N_POSITION_FEATURES = 14


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(film(norm(x))))))): the embedding enters by FiLM (scale and shift)."""

    def __init__(self, channels: int, n_embedding: int) -> None:
        super().__init__()
        self.film = nn.Linear(n_embedding, 2 * channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in (*self.film.parameters(), *self.second.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """(b, c, y, x) and (b, n_embedding) -> (b, c, y, x)."""
        h = self.first(F.silu(modulated(x, self.film(emb))))
        out: Tensor = x + self.second(F.silu(normalised(h)))
        return out


class Trunk(nn.Module):
    """A U-shaped network of residual blocks: 1/2 resolution -> 1/4 -> ... -> back to 1/2."""

    def __init__(self, channels: Sequence[int], n_blocks: int, n_embedding: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(stage(c, n_blocks, n_embedding) for c in channels)
        self.up = nn.ModuleList(stage(c, n_blocks, n_embedding) for c in channels[:-1])
        self.shrink = nn.ModuleList(nn.Conv2d(4 * a, b, 1) for a, b in pairwise(channels))
        self.grow = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in pairwise(channels))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """(b, channels[0], y, x) and (b, n_embedding) -> (b, channels[0], y, x)."""
        return down_and_up(x, emb, self.down, self.up, self.shrink, self.grow)


def down_and_up(
    x: Tensor,
    emb: Tensor,
    down: nn.ModuleList,
    up: nn.ModuleList,
    shrink: nn.ModuleList,
    grow: nn.ModuleList,
) -> Tensor:
    """Through the stages of every level and back, with a skip at each: (b, c, y, x) -> (b, c, y, x)."""
    skips = []
    for level, blocks in enumerate(down):
        if level:
            x = shrink[level - 1](F.pixel_unshuffle(x, 2))
        x = _through(blocks, x, emb)
        skips.append(x)
    for level in reversed(range(len(up))):
        x = skips[level] + F.pixel_shuffle(grow[level](x), 2)
        x = _through(up[level], x, emb)
    return x


def stage(channels: int, n_blocks: int, n_embedding: int) -> nn.ModuleList:
    """The residual blocks of one level."""
    return nn.ModuleList(ResidualBlock(channels, n_embedding) for _ in range(n_blocks))


def normalised(x: Tensor) -> Tensor:
    """Mean 0 and deviation 1 over the channels of each pixel: (b, c, y, x) -> (b, c, y, x)."""
    return F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],)).permute(0, 3, 1, 2)


def modulated(x: Tensor, film: Tensor) -> Tensor:
    """`x` normalised, then scaled and shifted by `film`: (b, c, y, x) and (b, 2 c) -> (b, c, y, x)."""
    scale, shift = film[:, :, None, None].chunk(2, dim=1)
    return torch.addcmul(shift, normalised(x), 1 + scale)


def mlp(n_in: int, n_hidden: int, n_out: int) -> nn.Sequential:
    """Two linear layers with SiLU between them."""
    return nn.Sequential(nn.Linear(n_in, n_hidden), nn.SiLU(), nn.Linear(n_hidden, n_out))


def position_features(positions: Tensor, ratio: float) -> Tensor:
    """What kernels are made from: (n,) positions in (0, 1) -> (n, N_POSITION_FEATURES)."""
    angles = math.pi * positions[:, None] * torch.arange(1, 7, device=positions.device)
    ratios = torch.full_like(positions[:, None], math.log2(ratio))
    return torch.cat([angles.cos(), angles.sin(), positions[:, None] - 0.5, ratios], dim=1)


def waves(values: Tensor, n: int, highest: float) -> Tensor:
    """Cosines and sines of `n` frequencies from 1 to `highest`: (b,) -> (b, 2 n)."""
    frequencies = torch.exp(torch.linspace(0.0, math.log(highest), n, device=values.device))
    angles = values[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _through(blocks: nn.Module, x: Tensor, emb: Tensor) -> Tensor:
    assert isinstance(blocks, nn.ModuleList)
    for block in blocks:
        x = block(x, emb)
    return x
