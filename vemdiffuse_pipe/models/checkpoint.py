"""Checkpoints: written with their card, loaded without unpickling anything."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from vemdiffuse_pipe.errors import ConfigError, ModelError
from vemdiffuse_pipe.models.card import ModelCard, find_card, find_checkpoint
from vemdiffuse_pipe.models.diffusion import LeanDiffusion
from vemdiffuse_pipe.models.interpolation import Interpolation
from vemdiffuse_pipe.models.lean import LeanConfig, LeanNetwork
from vemdiffuse_pipe.models.protocol import Model
from vemdiffuse_pipe.models.restoration import Filter, Restorer


def load_model(
    name: str,
    *,
    steps: int,
    contrast: tuple[float, float] | None,
    precision: str,
    device: str = "cpu",
    task: str = "isotropic",
) -> Model:
    """The model that `name` means, ready to render on `device`. Raises ConfigError or ModelError."""
    _check_device(device)
    card = find_card(name, task)
    if card.kind == "filter":
        return Filter(task, name)
    if card.kind == "interpolation":
        return Interpolation(1 if card.name == "linear" else 3)
    if contrast is None:
        raise ModelError(f"model {name} needs the contrast of the volume, which was not measured")
    network = load_network(find_checkpoint(name), card).on(device)
    model = LeanDiffusion(card, network, steps=steps, contrast=contrast, precision=precision)
    return model if card.task == "isotropic" else Restorer(card, model)


def _check_device(name: str) -> None:
    """Raises ConfigError unless something can be computed there."""
    try:
        torch.zeros(1, device=name).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:  # AssertionError: built without CUDA
        first, *_ = str(error).splitlines() or [type(error).__name__]
        raise ConfigError(
            f"device {name[:80]!r} cannot be used here ({first[:120]}); set device in [run] to cpu, "
            "or to one that this machine and this torch have"
        ) from None


def load_network(path: Path, card: ModelCard) -> LeanNetwork:
    """The lean network of a checkpoint, in float32. Raises ModelError unless every tensor is right."""
    try:
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as safetensors ({error}): truncated?") from None
    if tensors_sha256(tensors) != card.sha256:
        raise ModelError(f"{path}: the weights are not those that its card describes (sha256 differs)")
    config = LeanConfig(card.channels, card.n_blocks, card.n_basis, card.n_embedding)
    with torch.device("meta"):
        network = LeanNetwork(config)
    if (card.context_px, card.multiple_px) != (network.context_px, network.multiple_px):
        raise ModelError(
            f"{path}: its card says context_px {card.context_px} and multiple_px {card.multiple_px}; "
            f"a network of its sizes has {network.context_px} and {network.multiple_px}"
        )
    try:
        network.load_state_dict({k: v.float() for k, v in tensors.items()}, assign=True)
    except RuntimeError as error:
        raise ModelError(
            f"{path}: the weights do not fit the network of its card ({str(error)[:200]})"
        ) from None
    return network


def save_checkpoint(path: Path, network: LeanNetwork, card: ModelCard) -> ModelCard:
    """Write `network` in half precision with its card, and return the card as written (sizes, sha256)."""
    tensors = {k: v.detach().cpu().half().contiguous() for k, v in network.state_dict().items()}
    card = replace(
        card,
        sha256=tensors_sha256(tensors),
        channels=network.config.channels,
        n_blocks=network.config.n_blocks,
        n_basis=network.config.n_basis,
        n_embedding=network.config.n_embedding,
        context_px=network.context_px,
        multiple_px=network.multiple_px,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(tensors, path, metadata={"card": card.to_json()})
    return card


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names and bytes, in the order of the names."""
    hasher = hashlib.sha256()
    for name in sorted(tensors):
        hasher.update(name.encode() + b"\0" + tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()
