r"""PSSR: a U-Net of residual blocks that shuffles pixels on its way up, for restoration of images.

After Fang et al., Nat. Methods 2021 (point-scanning super-resolution): a residual encoder of 34 layers' kind,
and a decoder that grows by pixel shuffle. Its kernels before a shuffle start equal within each 2 x 2
(Aitken et al. 2017), so that no checkerboard is there to be unlearned, and nothing is blurred to hide one.

    image -> level 0 -------------------------+-> out
               \-> level 1 (1/2) --------+-> shuffle
                     \-> level 2 (1/4) -> shuffle ...

It is not normalised over the image, so it is exact under tiling within its context.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vemdiffuse_pipe.models.sizes.plain import PssrConfig


class Pssr(nn.Module):
    """One image in, one out: see `forward`."""

    def __init__(self, config: PssrConfig = PssrConfig()) -> None:  # noqa: B008 (frozen)
        super().__init__()
        self.config = config
        channels, blocks = config.channels, config.n_blocks
        self.head = nn.Conv2d(1, channels[0], 3, padding=1)
        self.down = nn.ModuleList(_stage(n, c) for n, c in zip(blocks, channels, strict=True))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(channels))
        self.grow = nn.ModuleList(_growing(b, a) for a, b in pairwise(channels))
        self.join = nn.ModuleList(_joining(2 * a, a) for a, _ in pairwise(channels))
        self.tail = nn.Conv2d(channels[0], 1, 3, padding=1)

    @property
    def decoder(self) -> tuple[str, ...]:
        """Prefixes of the names of the parameters of the bottleneck and of all that follows it."""
        return f"down.{len(self.config.channels) - 1}.", "grow.", "join.", "tail."

    def forward(self, image: Tensor) -> Tensor:
        """(b, 1, y, x) standardised grey -> the same, restored; y and x multiples of `config.multiple_px`."""
        skips: list[Tensor] = []
        x = self.down[0](self.head(image))
        for shrink, stage in zip(self.shrink, list(self.down)[1:], strict=True):
            skips.append(x)
            x = stage(F.relu(shrink(x)))
        for level in reversed(range(len(self.grow))):
            x = self.join[level](torch.cat([self.grow[level](x), skips[level]], dim=1))
        out: Tensor = self.tail(x)
        return out


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


def _stage(n_blocks: int, channels: int) -> nn.Sequential:
    return nn.Sequential(*(_Residual(channels) for _ in range(n_blocks)))


def _joining(n_in: int, n_out: int) -> nn.Sequential:
    layers: Sequence[nn.Module] = (
        nn.Conv2d(n_in, n_out, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(n_out, n_out, 3, padding=1),
        nn.ReLU(),
    )
    return nn.Sequential(*layers)


def _growing(n_in: int, n_out: int) -> nn.Sequential:
    """Twice the pixels: a 1 x 1 convolution whose four kernels of a 2 x 2 start equal, and a shuffle."""
    conv = nn.Conv2d(n_in, 4 * n_out, 1)
    with torch.no_grad():
        for parameter in (conv.weight, conv.bias):
            assert parameter is not None
            parameter.copy_(parameter[::4].repeat_interleave(4, dim=0))
    return nn.Sequential(conv, nn.PixelShuffle(2), nn.ReLU())
