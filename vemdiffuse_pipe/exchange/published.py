"""Checkpoints of the published UDiM, as their authors' program writes them, made into checkpoints of ours.

They are pickled state dictionaries; only tensors and plain containers are unpickled, never code. Names:

    theirs, after "denoise_fn."                     ours
    cond_embed.N, channel_embed.N                   embed_gamma.N, embed_layer.N
    input_blocks.0.0                                enter
    input_blocks.N.0.*                              down.(N - 1).*
    middle_block.0.*, .1.*, .2.*                    before.*, attention.*, after.*
    output_blocks.N.0.*, output_blocks.N.1.*        up.M.*, M counting both in order
    out.0, out.2                                    normalise, leave
    in_layers.0, in_layers.2, emb_layers.1          norm_in, conv_in, film
    out_layers.0, out_layers.3, skip_connection     norm_out, conv_out, skip
    norm, qkv, proj_out (of attention)              norm, qkv, out

Noise schedules lie beside them (gammas, ...); we have our own. Planes are numbered from 0 in both.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vemdiffuse_pipe.errors import ModelError
from vemdiffuse_pipe.models.card import ModelCard
from vemdiffuse_pipe.models.checkpoint import save_checkpoint
from vemdiffuse_pipe.models.sizes.udim import UdimConfig
from vemdiffuse_pipe.models.udim import UdimNetwork

SCHEDULES = (
    "gammas",
    "sqrt_recip_gammas",
    "sqrt_recipm1_gammas",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)
AVERAGES = ("ema", "model_ema", "network_ema", "state_dict_ema")
RAWS = ("raw", "model", "network", "state_dict")

_ENDS = {
    "embed_gamma": "cond_embed",
    "embed_layer": "channel_embed",
    "enter": "input_blocks.0.0",
    "before": "middle_block.0",
    "attention": "middle_block.1",
    "after": "middle_block.2",
    "normalise": "out.0",
    "leave": "out.2",
}
_PARTS = {
    "norm_in": "in_layers.0",
    "conv_in": "in_layers.2",
    "film": "emb_layers.1",
    "norm_out": "out_layers.0",
    "conv_out": "out_layers.3",
    "skip": "skip_connection",
    "out": "proj_out",
}


def import_checkpoint(file: Path, output: Path, kind: str, ratio: int | None, *, averaged: bool) -> ModelCard:
    """Write the checkpoint `file` to `output` as one of ours, in float32, and return its card.

    `kind`: udim, for volumes, whose ratio must be known; cddpm, for images, conditioned on one. `averaged`:
    take the moving average of the weights where the file holds both. Raises ModelError.
    """
    if (kind == "udim") != (ratio is not None):
        need = (
            "needs --ratio, the one it was trained at"
            if kind == "udim"
            else "serves any ratio; leave --ratio out"
        )
        raise ModelError(f"a model of kind {kind} {need}")
    if output.exists():
        raise ModelError(f"{output} exists already; choose another --output")
    theirs = state_dict_of(file, averaged)
    network = UdimNetwork(UdimConfig(ratio=ratio or 0, n_conditions=2 if ratio else 1))
    network.load_state_dict(renamed(theirs, network, file))
    name, low, high = output.stem[:80], ratio or 2, ratio or 12
    training = f"imported from {file.name[:200]}"
    card = ModelCard(name, kind, "", True, False, 0, 0, 1, low, high, samples=2, steps=10, training=training)
    return save_checkpoint(output, network, card, torch.float32)


def state_dict_of(file: Path, averaged: bool) -> dict[str, Tensor]:
    """The tensors of a file by name, from its top, or from the state asked for. Raises ModelError."""
    content = _unpickled(file)
    if not isinstance(content, Mapping):
        raise ModelError(f"{file} holds a {type(content).__name__}; needed: a state dictionary")
    states = {str(k): v for k, v in content.items() if isinstance(v, Mapping)}
    if states and not any(isinstance(v, Tensor) for v in content.values()):
        known = [name for name in (AVERAGES if averaged else RAWS) if name in states]
        if not known:
            raise ModelError(
                f"{file} holds the states {', '.join(states)[:200]}; needed with "
                f"{'--ema' if averaged else '--raw'}: one of {', '.join(AVERAGES if averaged else RAWS)}"
            )
        content = states[known[0]]
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    return {name.removeprefix("module.").removeprefix("denoise_fn."): v for name, v in tensors.items()}


def _unpickled(file: Path) -> object:
    try:
        with warnings.catch_warnings(action="ignore"):  # of pickles that it then refuses
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"there is no file {file}") from None
    except pickle.UnpicklingError:
        raise ModelError(
            f"{file} is no pickle of tensors alone: it is damaged, or would run code when opened; not opened"
        ) from None
    except (OSError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{file} cannot be read ({type(error).__name__}); needed: a state dictionary saved by torch"
        ) from None


def renamed(theirs: Mapping[str, Tensor], network: UdimNetwork, file: Path) -> dict[str, Tensor]:
    """The tensors under our names, in float32. Raises ModelError that names the first that is wrong."""
    names = {ours: _their_name(ours, network) for ours in network.state_dict()}
    foreign = [name for name in theirs if name not in {*names.values(), *SCHEDULES}]
    missing = [name for name in names.values() if name not in theirs]
    if missing or foreign:
        what = (
            f"lacks {missing[0]}" if missing else f"holds {foreign[0][:120]}, which no UDiM of this kind has"
        )
        raise ModelError(f"{file} {what} ({len(missing)} missing, {len(foreign)} foreign); is --kind right?")
    tensors: dict[str, Tensor] = {}
    for ours, expected in network.state_dict().items():
        tensor = theirs[names[ours]]
        flat = ours.startswith("attention.") and tuple(tensor.shape) == tuple(expected.shape[:-1])
        if not flat and tensor.shape != expected.shape:
            raise ModelError(
                f"{file}: {names[ours]} has the shape {tuple(tensor.shape)}; needed: {tuple(expected.shape)}"
            )
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise ModelError(f"{file}: {names[ours]} holds what is no finite number; is it damaged?")
        tensors[ours] = tensor.reshape(expected.shape).float()
    return tensors


def _their_name(ours: str, network: UdimNetwork) -> str:
    """What the authors call a tensor of ours."""
    first, *rest = ours.split(".")
    if first in _ENDS:
        return ".".join([_ENDS[first], *(_PARTS.get(part, part) for part in rest)])
    number, part, *end = rest
    if first == "down":
        return ".".join([f"input_blocks.{int(number) + 1}.0", _PARTS[part], *end])
    blocks = list(network.config.up())[: int(number) + 1]
    place = sum(not block.resize for block in blocks) - 1
    return ".".join([f"output_blocks.{place}.{abs(blocks[-1].resize)}", _PARTS[part], *end])
