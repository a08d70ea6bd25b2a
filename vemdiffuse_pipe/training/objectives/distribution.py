"""How far the textures of two images are apart: the projected distribution loss.

Delbracio, Talebi & Milanfar 2021: features of both images by one network; of each feature, the values at
all places sorted; their mean absolute difference, which is the Wasserstein distance of the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional as F

from vemdiffuse_pipe.errors import ModelError

Layer = tuple[Tensor, Tensor]  # kernels (n_out, n_in, k, k) and what is added to what they give (n_out,)
RANDOM_CHANNELS = (16, 32, 64)


def random_layers() -> tuple[Layer, ...]:
    """Three layers of 3 x 3 kernels that chance made, always the same."""
    generator = torch.Generator().manual_seed(0)
    layers, n_in = [], 1
    for n_out in RANDOM_CHANNELS:
        kernels = torch.randn(n_out, n_in, 3, 3, generator=generator) * math.sqrt(2 / (9 * n_in))
        layers.append((kernels, torch.zeros(n_out)))
        n_in = n_out
    return tuple(layers)


def stored_layers(path: Path) -> tuple[Layer, ...]:
    """Layers of a safetensors file: `0.weight`, `0.bias`, `1.weight`, ... The first sees 1 or 3 channels.

    Raises ModelError where the file does not hold such layers, each made for what the one before gives.
    """
    try:
        tensors = {k: v.float() for k, v in safetensors.torch.load_file(path).items()}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as safetensors ({str(error)[:200]})") from None
    layers = [(tensors[f"{i}.weight"], tensors[f"{i}.bias"]) for i in range(_n_layers(tensors))]
    n_in = layers[0][0].shape[1] if layers and layers[0][0].dim() == 4 else 0
    for kernels, bias in layers:
        n_out, *rest = kernels.shape
        if len(rest) != 3 or rest[0] != n_in or rest[1] != rest[2] or bias.shape != (n_out,):
            n_in = 0
            break
        n_in = n_out
    if not n_in or 2 * len(layers) != len(tensors) or layers[0][0].shape[1] not in (1, 3):
        raise ModelError(
            f"{path} is no feature network; needed: square kernels 0.weight, 1.weight, ... of 1 or 3 "
            "channels at first, each made for what the one before gives, and 0.bias, 1.bias, ..."
        )
    return tuple(layers)


def _n_layers(tensors: dict[str, Tensor]) -> int:
    n = 0
    while f"{n}.weight" in tensors and f"{n}.bias" in tensors:
        n += 1
    return n


@dataclass(frozen=True, slots=True)
class Features:
    """Convolutions, each followed by what is above 0 of it, at 1, 1/2, 1/4, ... of the resolution."""

    layers: Sequence[Layer] = field(default_factory=random_layers)

    def of(self, images: Tensor) -> list[Tensor]:
        """Features of every layer: (b, 1, y, x) -> (b, c, y', x') each, as long as there are 2 x 2 pixels."""
        h = images.expand(-1, self.layers[0][0].shape[1], -1, -1)
        found: list[Tensor] = []
        for kernels, bias in self.layers:
            if found:
                if min(h.shape[2:]) < 4:
                    break
                h = F.avg_pool2d(h, 2)
            h = F.relu(F.conv2d(h, kernels.to(h.device), bias.to(h.device), padding=kernels.shape[-1] // 2))
            found.append(h)
        return found


def distribution_loss(features: Features, images: Tensor, truth: Tensor) -> Tensor:
    """The distance of the features' values, whatever their places, mean over layers; a scalar.

    `images`, `truth`: (b, 1, y, x) standardised grey.
    """
    pairs = zip(features.of(images), features.of(truth), strict=True)
    return torch.stack([(_sorted(a) - _sorted(b)).abs().mean() for a, b in pairs]).mean()


def _sorted(feature: Tensor) -> Tensor:
    ordered: Tensor = feature.flatten(2).sort(dim=2).values
    return ordered
