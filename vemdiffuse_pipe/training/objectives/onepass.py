"""Planes answered at once: of every row of axial planes, and of all planes between sections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vemdiffuse_pipe.models.onepass import axial_planes, interpolated
from vemdiffuse_pipe.training.gaps import GapBatch
from vemdiffuse_pipe.training.objectives.distribution import Features, distribution_loss
from vemdiffuse_pipe.training.objectives.draws import Draws

DISTRIBUTION_WEIGHT = 0.01  # Khateri et al. 2023


@dataclass(frozen=True, slots=True)
class AxialRepair:
    """Mean absolute error of interpolated planes, restored, and a share of how far their textures are apart.

    The gap lies along y or x, so each row of a crop, with the planes before and behind it, is a patch of a
    measured section of which all but every r-th line were taken away. It is interpolated and filled to
    whole windows as in use.
    """

    multiple_px: int
    autocast: bool = True
    features: Features = field(default_factory=Features)

    def __call__(self, network: nn.Module, batch: GapBatch, draws: Draws) -> Tensor:
        """The loss; a scalar. Nothing is drawn."""
        stack = interpolated(batch.sections, batch.ratio).transpose(1, 2)
        truth = batch.targets.transpose(1, 2).flatten(0, 1)[:, None]
        with torch.autocast(stack.device.type, torch.bfloat16, enabled=self.autocast):
            restored = network(axial_planes(stack, self.multiple_px)).float()
        restored = restored[:, :, 1 : 1 + truth.shape[2]]
        apart = distribution_loss(self.features, restored, truth)
        return F.l1_loss(restored, truth) + DISTRIBUTION_WEIGHT * apart


@dataclass(frozen=True, slots=True)
class PlanesBetween:
    """Mean absolute error of the planes that a three-dimensional network makes between its sections."""

    autocast: bool = True

    def __call__(self, network: nn.Module, batch: GapBatch, draws: Draws) -> Tensor:
        """The loss; a scalar. Nothing is drawn."""
        with torch.autocast(batch.sections.device.type, torch.bfloat16, enabled=self.autocast):
            planes = network(batch.sections).float()
        return F.l1_loss(planes[:, 1 : 1 + batch.targets.shape[1]], batch.targets)


@dataclass(frozen=True, slots=True)
class Restored:
    """How far a section, restored, is from the clean one, by `distance`: of networks that see one image."""

    distance: Callable[[Tensor, Tensor], Tensor]
    autocast: bool = True

    def __call__(self, network: nn.Module, batch: GapBatch, draws: Draws) -> Tensor:
        """The loss; a scalar. Nothing is drawn."""
        with torch.autocast(batch.sections.device.type, torch.bfloat16, enabled=self.autocast):
            restored = network(batch.sections[:, :1]).float()
        return self.distance(restored, batch.targets)
