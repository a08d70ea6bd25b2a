"""The kinds of network that can be trained: each with its objective, and the model that it becomes.

Another kind is another case of `build`: a network, an objective that knows how to call it, and a function
that wraps the trained network as a model of `models.protocol`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from vemdiffuse_pipe.errors import ModelError
from vemdiffuse_pipe.models.card import ModelCard, find_card, find_checkpoint, with_network
from vemdiffuse_pipe.models.checkpoint import as_model, load_network
from vemdiffuse_pipe.models.lean import LeanConfig, LeanNetwork
from vemdiffuse_pipe.models.protocol import Model, Settings
from vemdiffuse_pipe.training.objectives import Objective, Regression, ResidualDiffusion
from vemdiffuse_pipe.training.settings import NetworkTable, TrainTable

Contrast = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Trainee:
    """A network in training. `card`: of the checkpoint that it will become, without what training will tell.

    `as_model`: the network as the pipeline uses it, for a volume of some contrast.
    """

    network: LeanNetwork
    objective: Objective
    card: ModelCard
    as_model: Callable[[LeanNetwork, Contrast], Model]


def build(
    table: NetworkTable, train: TrainTable, ratios: Mapping[int, float], residual_scale: float
) -> Trainee:
    """What [model] describes, begun with the checkpoint of [train] where there is one. Raises ModelError."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(train.seed % 2**63)
        config = LeanConfig(table.channels, table.n_blocks, table.n_basis, table.n_embedding)
        network = LeanNetwork(config, difficulty=table.difficulty)
    if train.checkpoint is not None:
        _begin_with(network, train.checkpoint, table.kind)
    freeze(network, train.parts)
    card = _card(table, ratios, residual_scale, network)
    autocast = train.precision == "bfloat16"
    objective: Objective = ResidualDiffusion(residual_scale, autocast, table.difficulty)
    if table.kind == "regression":
        objective = Regression(residual_scale, autocast)

    def used(trained: LeanNetwork, contrast: Contrast) -> Model:
        return as_model(card, trained, Settings(card.steps, card.sampler, contrast, train.precision))

    return Trainee(network, objective, card, used)


def multiple_px(table: NetworkTable) -> int:
    """Crops must be a multiple of this, in pixels."""
    return 1 << len(table.channels)


def residual_scale_of(checkpoint: str) -> float:
    """The scale that a network was trained with: it must be fine-tuned with the same. Raises ModelError."""
    return find_card(checkpoint).residual_scale


def freeze(network: LeanNetwork, parts: str) -> None:
    """Let only some parameters learn: "all", or "decoder", the bottleneck and what follows it."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(parts == "all" or name.startswith(network.decoder))


def without_difficulty(network: LeanNetwork) -> LeanNetwork:
    """A network of the same weights without the second head, as checkpoints hold it."""
    plain = LeanNetwork(network.config)
    own = plain.state_dict()
    plain.load_state_dict({name: value for name, value in network.state_dict().items() if name in own})
    return plain


def _begin_with(network: LeanNetwork, checkpoint: str, kind: str) -> None:
    card = find_card(checkpoint)
    if card.kind != kind:
        raise ModelError(f"{checkpoint} is a checkpoint of kind {card.kind}; [model] asks for kind {kind}")
    path = find_checkpoint(checkpoint)
    begun = load_network(path, card)
    assert isinstance(begun, LeanNetwork)
    if begun.config != network.config:
        raise ModelError(
            f"{checkpoint} is a network of {_sizes(begun.config)}; [model] asks for "
            f"{_sizes(network.config)}: give it the sizes of the checkpoint"
        )
    network.load_state_dict({**network.state_dict(), **begun.state_dict()})


def _sizes(config: LeanConfig) -> str:
    return (
        f"channels {list(config.channels)}, n_blocks {config.n_blocks}, n_basis {config.n_basis}, "
        f"n_embedding {config.n_embedding}"
    )


def _card(
    table: NetworkTable, ratios: Mapping[int, float], residual_scale: float, network: LeanNetwork
) -> ModelCard:
    is_drawn = table.kind == "lean"
    card = ModelCard(
        name=table.kind,
        kind=table.kind,
        sha256="",
        is_stochastic=is_drawn,
        is_tile_exact=True,
        reach_sections=0,
        context_px=network.context_px,
        multiple_px=network.multiple_px,
        min_ratio=min(ratios),
        max_ratio=max(ratios),
        residual_scale=residual_scale,
    )
    card = with_network(card, network.config)
    return replace(card, samples=table.samples, steps=table.steps) if is_drawn else card
