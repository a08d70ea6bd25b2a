"""The kinds of network that can be trained: each with its objective, and the model that it becomes.

Another kind is another entry of OBJECTIVES, if need be with a function that makes of the trained network what
its checkpoint holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from vemdiffuse_pipe.config import Task
from vemdiffuse_pipe.errors import ConfigError, ModelError
from vemdiffuse_pipe.models.a2i3dem import AxialNetwork
from vemdiffuse_pipe.models.card import ModelCard, find_card, find_checkpoint, with_network
from vemdiffuse_pipe.models.checkpoint import Network, as_model, load_network, new_network
from vemdiffuse_pipe.models.diffusion import WHOLE_RANGE
from vemdiffuse_pipe.models.kinds import KINDS
from vemdiffuse_pipe.models.lean import LeanNetwork
from vemdiffuse_pipe.models.protocol import Model, Sectioning, Settings
from vemdiffuse_pipe.models.sizes.a2i3dem import AxialConfig
from vemdiffuse_pipe.models.sizes.lean import LeanConfig
from vemdiffuse_pipe.models.sizes.protocol import Sizes
from vemdiffuse_pipe.training.objectives.distribution import Features, stored_layers
from vemdiffuse_pipe.training.objectives.draws import Objective
from vemdiffuse_pipe.training.objectives.gaps import Estimation, OfAnyVolume, PlaneDiffusion
from vemdiffuse_pipe.training.objectives.onepass import AxialRepair, PlanesBetween, Restored
from vemdiffuse_pipe.training.objectives.plane_noise import PlaneNoise
from vemdiffuse_pipe.training.objectives.residual import Regression, ResidualDiffusion
from vemdiffuse_pipe.training.settings import NetworkTable, TrainTable

Contrast = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ObjectiveInputs:
    """What objectives are made from."""

    table: NetworkTable
    sizes: Sizes
    scale: float
    """Of residuals, in deviations of the grey levels."""
    autocast: bool
    """True where the network runs in bfloat16."""


OBJECTIVES: dict[str, Callable[[ObjectiveInputs], Objective]] = {
    "lean": lambda of: ResidualDiffusion(of.scale, of.autocast, of.table.difficulty),
    "regression": lambda of: Regression(of.scale, of.autocast),
    "udim": lambda of: PlaneNoise(2, of.autocast, of.table.difficulty),
    "cddpm": lambda of: PlaneNoise(1, of.autocast, of.table.difficulty),
    "a2i3dem": lambda of: AxialRepair(of.sizes.multiple_px, of.autocast, _features(of.table)),
    "sru3d": lambda of: PlanesBetween(of.autocast),
    "rcan": lambda of: Restored(functional.l1_loss, of.autocast),
    "pssr": lambda of: Restored(functional.mse_loss, of.autocast),
    "estimator": lambda of: OfAnyVolume(Estimation(of.scale, of.autocast), sectioning_of(of.table)),
    "sampler": lambda of: OfAnyVolume(PlaneDiffusion(of.scale, of.autocast), sectioning_of(of.table)),
}


@dataclass(frozen=True, slots=True)
class TrainableModel:
    """A network in training, and what its checkpoint will be."""

    network: nn.Module
    objective: Objective
    card: ModelCard
    """Of the checkpoint, without what is only known after training."""
    as_model: Callable[[nn.Module, Contrast], Model]
    """The network as the pipeline uses it, for a volume of some contrast."""
    sizes: Sizes
    """Of the network in the checkpoint."""

    def exported(self, network: nn.Module) -> Network:
        """A network of the same weights as checkpoints hold it: of `sizes`, without a lean second head."""
        plain = new_network(self.card.kind, self.sizes)
        known = plain.state_dict()
        plain.load_state_dict({name: value for name, value in network.state_dict().items() if name in known})
        return cast(Network, plain)


def build(
    table: NetworkTable, train: TrainTable, sizes: Sizes, ratios: Mapping[int, float], residual_scale: float
) -> TrainableModel:
    """What [model] describes, started from the checkpoint of [train], if any. Raises ModelError."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(train.seed % 2**63)
        network = _new(table, sizes)
    if train.checkpoint is not None:
        _start_from(network, train.checkpoint, table, sizes)
    freeze(network, train.parts)
    autocast = train.precision == "bfloat16"
    objective = OBJECTIVES[table.kind](ObjectiveInputs(table, sizes, residual_scale, autocast))
    card = _card(table, ratios, residual_scale, sizes)

    def used(trained: nn.Module, contrast: Contrast) -> Model:
        told = sectioning_of(table)
        return as_model(card, trained, Settings(card.steps, card.sampler, contrast, train.precision, told))

    return TrainableModel(network, objective, card, used, sizes)


def sectioning_of(table: NetworkTable) -> Sectioning:
    """What a network is told of what it learns from: planes a pixel apart, and as thick as sections."""
    thickness = table.section_thickness_nm or table.pixel_nm
    return Sectioning(table.pixel_nm, table.pixel_nm, thickness, thickness)


def grey_of(kind: str) -> Contrast | None:
    """Mean and deviation that networks of a kind see grey levels by; those of each volume if None."""
    return None if KINDS[kind].needs_contrast else WHOLE_RANGE


def residual_scale_of(checkpoint: str, task: Task) -> float:
    """The scale that a network was trained with: it must be fine-tuned with the same. Raises ModelError."""
    return find_card(checkpoint, task).residual_scale


def freeze(network: nn.Module, parts: str) -> None:
    """Let only some parameters learn: "all", or "decoder", the bottleneck and what follows it.

    Raises ConfigError for a network that has no such part.
    """
    decoder: tuple[str, ...] = network.decoder  # type: ignore[assignment]
    if parts != "all" and not decoder:
        raise ConfigError(
            f'train.parts = {parts!r}: this network has no decoder; give "all", or leave it out'
        )
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(parts == "all" or name.startswith(decoder))


def _new(table: NetworkTable, sizes: Sizes) -> nn.Module:
    """The network as it is trained."""
    if isinstance(sizes, LeanConfig):
        return LeanNetwork(sizes, difficulty=table.difficulty)
    if isinstance(sizes, AxialConfig):  # patches have one axis; in use, xz and yz planes are averaged
        return AxialNetwork(replace(sizes, has_both_axes=False))
    return new_network(table.kind, sizes)


def _start_from(network: nn.Module, checkpoint: str, table: NetworkTable, sizes: Sizes) -> None:
    card = find_card(checkpoint, table.task)
    if card.kind != table.kind:
        raise ModelError(
            f"{checkpoint} is a checkpoint of kind {card.kind}; [model] asks for kind {table.kind}"
        )
    if card.network_sizes != sizes:
        raise ModelError(
            f"{checkpoint} is a network of {_shown(card.network_sizes)}; [model] asks for {_shown(sizes)}: "
            "give it the sizes of the checkpoint"
        )
    stored = load_network(find_checkpoint(checkpoint), card)
    network.load_state_dict({**network.state_dict(), **stored.state_dict()})


def _shown(sizes: Sizes) -> str:
    """Sizes in words."""
    named = {name: list(v) if isinstance(v, tuple) else v for name, v in sizes_by_name(sizes).items()}
    return ", ".join(f"{name} {value}" for name, value in named.items())


def sizes_by_name(sizes: Sizes) -> dict[str, int | bool | tuple[int, ...]]:
    """Sizes as a card holds them."""
    return asdict(sizes)  # type: ignore[call-overload, no-any-return]


def _features(table: NetworkTable) -> Features:
    """Those of a file, or made by chance. Raises ModelError."""
    return Features() if table.features is None else Features(stored_layers(Path(table.features)))


def _card(table: NetworkTable, ratios: Mapping[int, float], residual_scale: float, sizes: Sizes) -> ModelCard:
    low, high = min(ratios), max(ratios)
    card = ModelCard(table.kind, table.kind, "", False, False, 0, 0, 1, low, high)
    card = with_network(replace(card, residual_scale=residual_scale, task=table.task), sizes)
    return replace(card, samples=table.samples, steps=table.steps) if card.is_stochastic else card
