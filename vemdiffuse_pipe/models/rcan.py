r"""RCAN: very deep residual channel attention network, a plain network for restoration of images.

Zhang et al., ECCV 2018.

    image -> conv -> group -> ... -> group -> conv -(+)-> conv -> restored image
                  \___________________________________/
    group  = x + conv(block(... block(x)))
    block  = x + a * h,  h = conv(relu(conv(x))),  a = sigmoid(conv(relu(conv(mean of h over the image))))

The mean over the image makes what a pixel becomes depend on all of the tile: it is not tile-exact.
"""

from __future__ import annotations

from torch import Tensor, nn

from vemdiffuse_pipe.models.sizes.plain import RcanConfig


class Rcan(nn.Module):
    """One image in, one out: see `forward`."""

    decoder = ()  # its groups are alike: there is no part that decodes

    def __init__(self, config: RcanConfig = RcanConfig()) -> None:  # noqa: B008 (frozen)
        super().__init__()
        self.config = config
        c = config.channels
        groups = [_Group(config) for _ in range(config.n_groups)]
        self.head = _conv(1, c)
        self.body = nn.Sequential(*groups, _conv(c, c))
        self.tail = _conv(c, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(b, 1, y, x) standardised grey -> the same, restored."""
        shallow = self.head(image)
        out: Tensor = self.tail(shallow + self.body(shallow))
        return out


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
