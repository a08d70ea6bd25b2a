"""What all models that hold a network share: how they are made, and that each tile is rendered by itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from vemdiffuse_pipe.models.card import ModelCard
from vemdiffuse_pipe.models.protocol import GapView, Settings, tile_by_tile
from vemdiffuse_pipe.models.samplers import Noise

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)


class NetworkModel(ABC, Generic[AnyNetwork]):
    """A model of `models.protocol` around a network. A kind says what one batch of tiles becomes."""

    def __init__(self, card: ModelCard, network: AnyNetwork, settings: Settings) -> None:
        self.card = card
        self.network = network.eval().requires_grad_(False)
        self.settings = settings

    @torch.inference_mode()
    def generate(self, gap: GapView, noise: Noise) -> Tensor:
        """The planes of each tile, for networks that draw one sample: (b, n, y, x) float32 grey levels."""
        return tile_by_tile(self._planes, gap, noise)

    @abstractmethod
    def _planes(self, gap: GapView, noise: Noise) -> Tensor:
        """The same, of as many tiles as the network is to see at once."""

    def _standardised(self, grey: Tensor) -> Tensor:
        """Grey levels as most networks see them: mean 0, deviation 1 over the volume."""
        mean, std = self.settings.contrast
        return ((grey - mean) / std).contiguous(memory_format=torch.channels_last)

    def _grey(self, standardised: Tensor) -> Tensor:
        """Grey levels, of what a network answers."""
        mean, std = self.settings.contrast
        return standardised.float() * std + mean

    def _in_precision(self, x: Tensor) -> torch.autocast:
        """The context in which the network runs where `x` is, in the arithmetic that was asked for."""
        return torch.autocast(x.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16")
