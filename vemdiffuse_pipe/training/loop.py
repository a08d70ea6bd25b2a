"""Training of the lean network on gaps: EDM loss on the residual, EMA, exact resume."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from vemdiffuse_pipe.models.edm import draw_training_sigmas, preconditioning
from vemdiffuse_pipe.models.lean import LeanNetwork
from vemdiffuse_pipe.training.gaps import GapBatch, GapSampler


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast: Adam, linear warm-up, cosine to zero, EMA of the weights."""

    n_steps: int
    lr: float = 1e-3
    n_warmup: int = 200
    ema: float = 0.999
    clip: float = 1.0

    def lr_at(self, step: int) -> float:
        """Learning rate of `step`."""
        warm = min(1.0, (step + 1) / self.n_warmup)
        return self.lr * warm * 0.5 * (1 + math.cos(math.pi * step / self.n_steps))


def linear_between(sections: Tensor, ratio: int) -> Tensor:
    """Linear interpolation of a gap at its r - 1 planes: (b, 2, y, x) -> (b, r - 1, y, x)."""
    t = (torch.arange(1, ratio, device=sections.device) / ratio)[:, None, None]
    return sections[:, :1] * (1 - t) + sections[:, 1:] * t


def edm_loss(
    network: LeanNetwork, batch: GapBatch, residual_scale: float, generator: torch.Generator
) -> Tensor:
    """Mean square error of F against its target: EDM Eq. 8 with the weight that makes it uniform.

    The clean sample is the residual (truth - linear interpolation) / residual_scale.
    """
    device = batch.targets.device
    clean = (batch.targets - linear_between(batch.sections, batch.ratio)) / residual_scale
    sigma = draw_training_sigmas(len(clean), generator)[:, None, None, None]
    noise = torch.randn(clean.shape, generator=generator).to(device)
    c_skip, c_out, c_in, c_noise = (c.to(device) for c in preconditioning(sigma))
    noisy = clean + sigma.to(device) * noise
    positions = torch.arange(1, batch.ratio, device=device) / batch.ratio
    with torch.autocast(device.type, torch.bfloat16):
        raw = network(c_in * noisy, batch.sections, positions, float(batch.ratio), c_noise.flatten())
    error: Tensor = raw.float() - (clean - c_skip * noisy) / c_out
    return error.square().mean()


def train(
    network: LeanNetwork,
    sampler: GapSampler,
    schedule: Schedule,
    *,
    residual_scale: float,
    folder: Path,
    device: torch.device,
    save_every: int = 500,
    log: Callable[[dict[str, float]], None] = lambda record: None,
) -> LeanNetwork:
    """Train `network` in place and return the moving average of its weights.

    Everything needed to go on lies in `folder` (state.safetensors); called again, it goes on there.
    """
    network.on(device)
    average = copy.deepcopy(network)
    optimiser = torch.optim.Adam(network.parameters(), lr=schedule.lr, betas=(0.9, 0.99))
    first = _resume(folder, network, average, optimiser)
    start = time.monotonic()
    for step in range(first, schedule.n_steps):
        batch = _to(sampler.batch(step), device)
        generator = torch.Generator().manual_seed(sampler.seed * 2**32 + step)
        for group in optimiser.param_groups:
            group["lr"] = schedule.lr_at(step)
        loss = edm_loss(network, batch, residual_scale, generator)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        clip_grad_norm_(network.parameters(), schedule.clip)
        optimiser.step()
        _update_average(average, network, min(schedule.ema, (step + 1) / (step + 10)))
        log({"step": step, "loss": loss.item(), "ratio": batch.ratio, "seconds": time.monotonic() - start})
        if (step + 1) % save_every == 0 or step + 1 == schedule.n_steps:
            _save(folder, step + 1, network, average, optimiser)
    return average


def _to(batch: GapBatch, device: torch.device) -> GapBatch:
    def move(t: Tensor) -> Tensor:
        return t.to(device=device, memory_format=torch.channels_last, non_blocking=True)

    return GapBatch(move(batch.sections), move(batch.targets), batch.ratio)


@torch.no_grad()
def _update_average(average: LeanNetwork, network: LeanNetwork, keep: float) -> None:
    for a, b in zip(average.parameters(), network.parameters(), strict=True):
        a.lerp_(b, 1 - keep)


def _save(
    folder: Path, step: int, network: LeanNetwork, average: LeanNetwork, optimiser: torch.optim.Adam
) -> None:
    """One file, replaced atomically: weights, average, Adam's moments, and the step in its metadata."""
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    for i, state in optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{k}": v for k, v in state.items()}
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    part = folder / "state.part"
    safetensors.torch.save_file(tensors, part, metadata={"step": json.dumps(step)})
    part.replace(folder / "state.safetensors")


def _resume(folder: Path, network: LeanNetwork, average: LeanNetwork, optimiser: torch.optim.Adam) -> int:
    path = folder / "state.safetensors"
    if not path.exists():
        return 0
    with safetensors.safe_open(path, "pt") as file:
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a mapping)
        step = int(json.loads(file.metadata()["step"]))
    for prefix, module in (("network.", network), ("average.", average)):
        module.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
    state: dict[int, dict[str, Tensor]] = {}
    for name in (k for k in tensors if k.startswith("adam.")):
        _, i, field = name.split(".", 2)
        state.setdefault(int(i), {})[field] = tensors[name]
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    return step
