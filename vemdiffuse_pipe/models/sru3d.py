"""3D-SRU-Net: a three-dimensional U-Net that is given sections and returns planes.

    sections --3x3x3--+--pool y, x--> 1/2 --+--pool--> 1/4 --along z * r--> grow --> ... --> planes
                      +---along z * r-------+---along z * r---> beside what comes from below

What is kept on the way down has the distance of sections along z; transposed convolutions along z bring it
to that of planes before it is used on the way up. After Heinrich et al. 2017 (MICCAI). No normalisation:
it is exact under tiling.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vemdiffuse_pipe.models.sizes.sru3d import Sru3dConfig

_FLAT = (1, 2, 2)


class Sru3dNetwork(nn.Module):
    """Planes from sections: see `forward`."""

    def __init__(self, config: Sru3dConfig = Sru3dConfig()) -> None:  # noqa: B008 (frozen)
        super().__init__()
        self.config = config
        channels, along_z = config.channels, (config.ratio, 1, 1)
        self.down = nn.ModuleList(_stage(a, b, config) for a, b in pairwise((1, *channels)))
        self.rise = nn.ModuleList(nn.ConvTranspose3d(c, c, along_z, along_z) for c in channels)
        self.grow = nn.ModuleList(nn.ConvTranspose3d(b, a, _FLAT, _FLAT) for a, b in pairwise(channels))
        self.up = nn.ModuleList(_stage(2 * c, c, config) for c in channels[:-1])
        self.leave = nn.Conv3d(channels[0], 1, 3, padding=1)

    @property
    def decoder(self) -> tuple[str, ...]:
        """Prefixes of the names of the parameters of the bottleneck and of all that follows it."""
        return f"down.{len(self.config.channels) - 1}.", "rise.", "up.", "grow.", "leave."

    def forward(self, sections: Tensor) -> Tensor:
        """(b, s, y, x) standardised grey -> (b, s * r, y, x); section u is where plane u * r is."""
        h, kept = sections[:, None], []
        for level, stage in enumerate(self.down):
            h = stage(F.max_pool3d(h, _FLAT) if level else h)
            kept.append(h)
        h = self.rise[-1](h)
        for level in reversed(range(len(self.up))):
            beside = self.rise[level](kept[level])
            h = self.up[level](torch.cat([beside, self.grow[level](h)], dim=1))
        out: Tensor = self.leave(h)
        return out[:, 0]


def _stage(n_in: int, n_out: int, config: Sru3dConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(config.n_convolutions):
        layers += [nn.Conv3d(n_out if i else n_in, n_out, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)
