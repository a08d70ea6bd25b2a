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

from vemdiffuse_pipe.models.blocks import (
    N_POSITION_FEATURES,
    down_and_up,
    mlp,
    normalised,
    position_features,
    stage,
    waves,
)
from vemdiffuse_pipe.models.sizes.lean import LeanConfig as LeanConfig


class LeanNetwork(nn.Module):
    """F of EDM Eq. 7 for the residual of a gap: see `forward`.

    `difficulty`: a second set of kernels out, which training alone uses; no checkpoint holds it.
    """

    def __init__(self, config: LeanConfig = LeanConfig(), *, difficulty: bool = False) -> None:  # noqa: B008
        super().__init__()
        self.config = config
        first, embedding = config.channels[0], config.n_embedding
        self.basis = mlp(N_POSITION_FEATURES, embedding, config.n_basis)
        self.embed = mlp(_N_LEVEL_FEATURES, embedding, embedding)
        self.sections_in = nn.Conv2d(8, first, 3, padding=1)
        self.planes_in = nn.Parameter(
            torch.randn(config.n_basis, first * 4, 3, 3) / math.sqrt(36 * config.n_basis)
        )
        self.planes_out = nn.Parameter(torch.zeros(config.n_basis, 4 * first, 3, 3))
        if difficulty:
            self.difficulty_out = nn.Parameter(torch.zeros_like(self.planes_out))
        self.down = nn.ModuleList(stage(c, config.n_blocks, embedding) for c in config.channels)
        self.up = nn.ModuleList(stage(c, config.n_blocks, embedding) for c in config.channels[:-1])
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
        basis = self.basis(position_features(positions, ratio).to(dtype))
        emb = F.silu(self.embed(_level_features(c_noise, ratio).to(dtype)))
        x = self.sections_in(F.pixel_unshuffle(sections, 2)) + self._enter(noisy, basis)
        x = down_and_up(x, emb, self.down, self.up, self.shrink, self.grow)
        heads = (self.planes_out, self.difficulty_out) if n_heads == 2 else (self.planes_out,)
        return torch.cat([self._leave(x, basis, kernels) for kernels in heads], dim=1)

    def _enter(self, noisy: Tensor, basis: Tensor) -> Tensor:
        kernel = torch.einsum("nb,bcsij->cnsij", basis, self.planes_in.unflatten(1, (-1, 4))).flatten(1, 2)
        return F.conv2d(F.pixel_unshuffle(noisy, 2), kernel / math.sqrt(len(basis)), padding=1)

    def _leave(self, x: Tensor, basis: Tensor, kernels: Tensor) -> Tensor:
        kernel = torch.einsum("nb,bscij->nscij", basis, kernels.unflatten(1, (4, -1))).flatten(0, 1)
        return F.pixel_shuffle(F.conv2d(normalised(x), kernel, padding=1), 2)


_N_LEVEL_FEATURES = 33


def _level_features(c_noise: Tensor, ratio: float) -> Tensor:
    levels = waves(c_noise, 16, 32.0)
    return torch.cat([levels, torch.full_like(levels[:, :1], math.log2(ratio))], dim=1)
