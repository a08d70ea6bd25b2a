"""A2I-3DEM: a U-shaped network of window attention that restores axial planes, interpolated along z.

    plane --conv--+--> blocks --> 1/2 blocks --> 1/4 blocks --> back up --> blocks --(+)--conv--> restored
                  +------------------------- low-level features -----------------------+

    block: x' = x + attention in windows (norm(x))        x'' = x' + gated layer (norm(x'))

Windows lie on multiples of their size, normalisation is over the channels of a pixel: what a pixel becomes
depends on `AxialConfig.context_px` pixels around it and on where the windows lie, which tiles that start
at multiples of `multiple_px` agree on. After Khateri et al. 2023 (arXiv 2309.10646).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vemdiffuse_pipe.models.sizes.a2i3dem import AxialConfig


class AxialNetwork(nn.Module):
    """An axial plane, restored: see `forward`."""

    def __init__(self, config: AxialConfig = AxialConfig()) -> None:  # noqa: B008 (frozen)
        super().__init__()
        self.config = config
        channels = config.channels
        self.enter = nn.Conv2d(1, channels[0], 3, padding=1)
        self.down = nn.ModuleList(_stage(c, config) for c in channels)
        self.up = nn.ModuleList(_stage(c, config) for c in channels[:-1])
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(channels))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(channels))
        self.leave = nn.Conv2d(channels[0], 1, 3, padding=1)

    @property
    def decoder(self) -> tuple[str, ...]:
        """Prefixes of the names of the parameters of the bottleneck and of all that follows it."""
        return f"down.{len(self.config.channels) - 1}.", "up.", "grow.", "leave."

    def forward(self, planes: Tensor) -> Tensor:
        """(b, 1, z, x) standardised grey -> the same, restored; z and x multiples of `config.multiple_px`."""
        low = self.enter(planes)
        h, kept = low, []
        for level, stage in enumerate(self.down):
            h = stage(self.shrink[level - 1](h) if level else h)
            kept.append(h)
        for level in reversed(range(len(self.up))):
            h = self.up[level](kept[level] + self.grow[level](h))
        out: Tensor = self.leave(h + low)
        return out


class AxialBlock(nn.Module):
    """Attention within windows, then the gated layer, each added to what came."""

    def __init__(self, channels: int, config: AxialConfig) -> None:
        super().__init__()
        self.window, self.head = config.window, config.head
        self.norm_attention = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.gather = nn.Linear(channels, channels)
        self.bias = nn.Parameter(
            torch.zeros(channels // config.head, 2 * config.window - 1, 2 * config.window - 1)
        )
        self.norm_gate = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, 4 * channels)
        self.around = nn.Conv2d(4 * channels, 4 * channels, 3, padding=1, groups=4 * channels)
        self.narrow = nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, z, x) -> the same."""
        h = x.permute(0, 2, 3, 1)
        h = h + self._attend(self.norm_attention(h))
        out: Tensor = (h + self._gate(self.norm_gate(h))).permute(0, 3, 1, 2)
        return out

    def _attend(self, h: Tensor) -> Tensor:
        m, (b, rows, columns, c) = self.window, h.shape
        heads = c // self.head
        qkv = self.qkv(h).view(b, rows // m, m, columns // m, m, 3, heads, self.head)
        query, key, value = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(3, -1, heads, m * m, self.head)
        bias = self._position_bias().to(query.dtype)
        gathered = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        windows = gathered.view(b, rows // m, columns // m, heads, m, m, self.head)
        out: Tensor = self.gather(windows.permute(0, 1, 4, 2, 5, 3, 6).reshape(b, rows, columns, c))
        return out

    def _position_bias(self) -> Tensor:
        """What a pixel's place relative to another's adds to its weight: (heads, m * m, m * m)."""
        at = torch.arange(self.window, device=self.bias.device)
        apart = at[:, None] - at + self.window - 1
        bias = self.bias[:, apart[:, None, :, None], apart[None, :, None, :]]
        return bias.flatten(3, 4).flatten(1, 2)

    def _gate(self, h: Tensor) -> Tensor:
        a, b = self.around(self.widen(h).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).chunk(2, dim=-1)
        out: Tensor = self.narrow(a * b)
        return out


def _stage(channels: int, config: AxialConfig) -> nn.Sequential:
    return nn.Sequential(*(AxialBlock(channels, config) for _ in range(config.n_blocks)))
