r"""RCAN: very deep residual channel attention network, a plain network for restoration of images.

Zhang et al., ECCV 2018.

    image -> conv -> group -> ... -> group -> conv -(+)-> pixel shuffle -> conv -> restored image
                  \___________________________________/
    group  = x + conv(block(... block(x)))
    block  = x + a * h,  h = conv(relu(conv(x))),  a = sigmoid(conv(relu(conv(mean of h over the image))))

The mean over the image makes what a pixel becomes depend on all of the tile: it is not tile-exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

from torch import Tensor, nn

from vemdiffuse_pipe.errors import ModelError

IS_TILE_EXACT = False


@dataclass(frozen=True, slots=True)
class RcanConfig:
    """Sizes; the paper's are 10 groups of 20 blocks of 64 channels, attention through a sixteenth of them."""

    scale: int = 1
    n_groups: int = 10
    n_blocks: int = 20
    channels: int = 64
    reduction: int = 16


class Rcan(nn.Module):
    """One image in, one out, `scale` times as large. Raises ModelError unless the scale is a power of 2."""

    def __init__(self, config: RcanConfig = RcanConfig()) -> None:
        super().__init__()
        if config.scale < 1 or config.scale & (config.scale - 1):
            raise ModelError(f"scale {config.scale}; RCAN doubles, so that a power of 2 is needed")
        self.config = config
        c = config.channels
        groups = [_Group(config) for _ in range(config.n_groups)]
        self.head = _conv(1, c)
        self.body = nn.Sequential(*groups, _conv(c, c))
        doublings = [m for _ in range(int(log2(config.scale))) for m in (_conv(c, 4 * c), nn.PixelShuffle(2))]
        self.tail = nn.Sequential(*doublings, _conv(c, 1))

    def forward(self, image: Tensor) -> Tensor:
        """(b, 1, y, x) standardised grey -> (b, 1, scale * y, scale * x)."""
        shallow = self.head(image)
        out: Tensor = self.tail(shallow + self.body(shallow))
        return out

    @property
    def flop_per_pixel(self) -> float:
        """Floating-point operations for a pixel of the input: its 3 x 3 convolutions."""
        config, c = self.config, self.config.channels
        n_convs = config.n_groups * (2 * config.n_blocks + 1) + 1
        flop = 18.0 * (n_convs * c * c + c)
        for level in range(int(log2(config.scale))):
            flop += 18.0 * 4 * c * c * 4**level
        return flop + 18.0 * c * config.scale**2


class _Group(nn.Module):
    def __init__(self, config: RcanConfig) -> None:
        super().__init__()
        blocks = [_Block(config.channels, config.reduction) for _ in range(config.n_blocks)]
        self.body = nn.Sequential(*blocks, _conv(config.channels, config.channels))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class _Block(nn.Module):
    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        narrow = max(1, channels // reduction)
        self.body = nn.Sequential(_conv(channels, channels), nn.ReLU(), _conv(channels, channels))
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, narrow, 1),
            nn.ReLU(),
            nn.Conv2d(narrow, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        out: Tensor = x + self.attention(h) * h
        return out


def _conv(n_in: int, n_out: int) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, padding=1)
