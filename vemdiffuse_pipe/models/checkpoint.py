"""Checkpoints: written with their card, loaded without unpickling anything."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from vemdiffuse_pipe.config import Task
from vemdiffuse_pipe.errors import ConfigError, ModelError
from vemdiffuse_pipe.models.a2i3dem import AxialNetwork
from vemdiffuse_pipe.models.capture import capture_network
from vemdiffuse_pipe.models.card import ModelCard, find_card, find_checkpoint, with_network
from vemdiffuse_pipe.models.diffusion import LeanDiffusion, UdimDiffusion
from vemdiffuse_pipe.models.gap_models import BothNetworks, Estimator, EstimatorAndSampler, PlaneSampler
from vemdiffuse_pipe.models.gap_networks import EstimatorNetwork, SamplerNetwork
from vemdiffuse_pipe.models.interpolation import Interpolation
from vemdiffuse_pipe.models.lean import LeanNetwork
from vemdiffuse_pipe.models.onepass import AxialRestoration, LeanRegression, OneImage, VolumetricNetwork
from vemdiffuse_pipe.models.protocol import ISOTROPIC, Model, Sectioning, Settings
from vemdiffuse_pipe.models.pssr import Pssr
from vemdiffuse_pipe.models.rcan import Rcan
from vemdiffuse_pipe.models.restoration import Filter, Restorer
from vemdiffuse_pipe.models.sizes.protocol import Sizes
from vemdiffuse_pipe.models.sru3d import Sru3dNetwork
from vemdiffuse_pipe.models.udim import UdimNetwork


class Network(Protocol):
    """A module that keeps its sizes."""

    @property
    def config(self) -> Sizes:
        """Its sizes."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Its tensors by name."""
        ...


@dataclass(frozen=True, slots=True)
class _Made:
    """How a kind's network and model are made."""

    network: Callable[..., nn.Module]
    model: Callable[..., Model]


_MADE = {
    "lean": _Made(LeanNetwork, LeanDiffusion),
    "regression": _Made(LeanNetwork, LeanRegression),
    "udim": _Made(UdimNetwork, UdimDiffusion),
    "cddpm": _Made(UdimNetwork, UdimDiffusion),
    "a2i3dem": _Made(AxialNetwork, AxialRestoration),
    "sru3d": _Made(Sru3dNetwork, VolumetricNetwork),
    "rcan": _Made(Rcan, OneImage),
    "pssr": _Made(Pssr, OneImage),
    "estimator": _Made(EstimatorNetwork, Estimator),
    "sampler": _Made(SamplerNetwork, PlaneSampler),
    "estimator-sampler": _Made(BothNetworks, EstimatorAndSampler),
}


def load_model(
    name: str,
    *,
    steps: int,
    contrast: tuple[float, float] | None,
    precision: str,
    device: str = "cpu",
    sampler: str = "",
    task: Task = "isotropic",
    capture: str = "off",
    sectioning: Sectioning = ISOTROPIC,
) -> Model:
    """The model that `name` means, ready to render on `device`. Raises ConfigError or ModelError.

    `sampler`: as its card says if left empty. `capture`: of its network, see models/capture.py.
    `sectioning`: for models whose kind needs to be told.
    """
    check_device(device)
    card = find_card(name, task)
    if card.kind == "filter":
        return Filter(task, name)
    if card.kind == "interpolation":
        return Interpolation(1 if card.name == "linear" else 3)
    if card.kind == "flow":
        from vemdiffuse_pipe.models.flow import OpticalFlow  # scipy and skimage, which networks do not need

        return OpticalFlow()
    if contrast is None and card.needs_contrast:
        raise ModelError(f"model {name} needs the contrast of the volume, which was not measured")
    check_precision(precision, device)
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, as on a CPU
    network = on_device(load_network(find_checkpoint(name), card), device)
    for part in (network.estimator, network.sampler) if isinstance(network, BothNetworks) else (network,):
        capture_network(part, device, capture)
    settings = Settings(steps, sampler or card.sampler, contrast or (0.0, 1.0), precision, sectioning)
    return as_model(card, network, settings)


def as_model(card: ModelCard, network: nn.Module, settings: Settings) -> Model:
    """A network of the card's kind as a model, of gaps or of single sections as its task is."""
    model = _MADE[card.kind].model(card, network, settings)
    return model if card.fills_gaps else Restorer(card, model)


def new_network(kind: str, sizes: Sizes) -> nn.Module:
    """A network of a kind with those sizes and random weights."""
    return _MADE[kind].network(sizes)


def on_device(network: nn.Module, device: str | torch.device) -> nn.Module:
    """The network itself, moved to `device`, its two-dimensional kernels laid out channels-last."""
    network.to(device)
    for parameter in (p for p in network.parameters() if p.dim() == 4):
        parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def check_precision(precision: str, device: str) -> None:
    """Raises ConfigError where a GPU has no such arithmetic."""
    if precision == "bfloat16" and device.startswith("cuda") and not has_bfloat16(device):
        raise ConfigError(f'{device} has no bfloat16 arithmetic; set precision = "float32" in [model]')


def has_bfloat16(device: str) -> bool:
    """True unless there is a GPU here of before 2020: bfloat16 needs compute capability 8.0."""
    if not torch.cuda.is_available():
        return True
    major, _ = torch.cuda.get_device_capability(device)
    return major >= 8


def check_device(name: str) -> None:
    """Raises ConfigError unless something can be computed there."""
    try:
        torch.zeros(1, device=name).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:  # AssertionError: built without CUDA
        first, *_ = str(error).splitlines() or [type(error).__name__]
        raise ConfigError(
            f"device {name[:80]!r} cannot be used here ({first[:120]}); set device in [run] to cpu, "
            "or to one that this machine and this torch have"
        ) from None


def load_network(path: Path, card: ModelCard) -> nn.Module:
    """The network of a checkpoint, in float32. Raises ModelError unless every tensor is right."""
    try:
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as safetensors ({error}): truncated?") from None
    if tensors_sha256(tensors) != card.sha256:
        raise ModelError(f"{path}: the weights are not those that its card describes (sha256 differs)")
    with torch.device("meta"):
        network = new_network(card.kind, card.network_sizes)
    try:
        network.load_state_dict({k: v.float() for k, v in tensors.items()}, assign=True)
    except RuntimeError as error:
        raise ModelError(
            f"{path}: the weights do not fit the network of its card ({str(error)[:200]})"
        ) from None
    return network


def save_checkpoint(
    path: Path, network: Network, card: ModelCard, dtype: torch.dtype = torch.float16
) -> ModelCard:
    """Write `network` in half precision with its card, and return the card as written.

    What the sizes of the network say, and the digest of the tensors, are set here, whatever `card` holds.
    """
    tensors = {k: v.detach().cpu().to(dtype).contiguous() for k, v in network.state_dict().items()}
    card = replace(with_network(card, network.config), sha256=tensors_sha256(tensors))
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(tensors, path, metadata={"card": card.to_json()})
    return card


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names and bytes, in the order of the names."""
    hasher = hashlib.sha256()
    for name in sorted(tensors):
        hasher.update(name.encode() + b"\0" + tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()
