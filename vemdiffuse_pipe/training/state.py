"""Everything that training needs to resume, in one file that is replaced as a whole.

network.*  average.*  adam.I.*      tensors; the position in the data is a function of the step
metadata: identity, step, elapsed_s, best, n_since_best
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from vemdiffuse_pipe.errors import ModelError
from vemdiffuse_pipe.storage import objects, parse_address

Identity = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far training is. `step`: steps done; `best`: score of the best validation, None before it."""

    step: int = 0
    elapsed_s: float = 0.0
    best: float | None = None
    best_step: int = 0
    n_since_best: int = 0


class TrainingState:
    """A network, the moving average of its weights, its optimiser, and how far it is."""

    def __init__(self, network: nn.Module, lr: float) -> None:
        self.network = network
        self.average = copy.deepcopy(network).requires_grad_(False)
        learning = [p for p in network.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(learning, lr=lr, betas=(0.9, 0.99))
        self.progress = Progress()

    def learn(self, loss: Tensor, lr: float, clip: float, ema: float) -> None:
        """One step down the gradient of `loss`, and of the average after it."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        self.optimiser.step()
        with torch.no_grad():
            for a, b in zip(self.average.parameters(), self.network.parameters(), strict=True):
                a.lerp_(b, 1 - ema)
            for kept, other in zip(self.average.buffers(), self.network.buffers(), strict=True):
                kept.copy_(other)

    def save(self, path: Path, identity: Identity) -> None:
        """Write it all, durably: after a crash there is the file before or this one.

        Raises OutputError, StorageFullError or TransientError; the file before is then still there.
        """
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for i, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{k}": v for k, v in moments.items()}
        p = self.progress
        metadata = {
            "identity": json.dumps(identity, sort_keys=True),
            "progress": json.dumps([p.step, p.elapsed_s, p.best, p.best_step, p.n_since_best]),
        }
        whole = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        objects.write_bytes_atomically(parse_address(path), safetensors.torch.save(whole, metadata))

    def restore(self, path: Path) -> None:
        """Resume from the state at `path`; nothing changes where there is no such file. Raises ModelError."""
        if not path.exists():
            return
        try:
            with safetensors.safe_open(path, "pt") as file:
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a mapping)
                self.progress = Progress(*json.loads(file.metadata()["progress"]))
            self._load(tensors)
        except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ModelError(
                f"{path} is not the state of this training ({str(error)[:200]}); move it away to start anew"
            ) from None

    def _load(self, tensors: Mapping[str, Tensor]) -> None:
        for prefix, module in (("network.", self.network), ("average.", self.average)):
            module.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
        moments: dict[int, dict[str, Tensor]] = {}
        for name in (k for k in tensors if k.startswith("adam.")):
            _, i, field = name.split(".", 2)
            moments.setdefault(int(i), {})[field] = tensors[name]
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})


def stored_identity(path: Path) -> dict[str, Any] | None:
    """The identity of the training that wrote a state; None where there is none. Raises ModelError."""
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, "pt") as file:
            identity = json.loads(file.metadata()["identity"])
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is no state of a training ({str(error)[:200]}); move it away") from None
    if not isinstance(identity, dict):
        raise ModelError(f"{path} does not say which training it belongs to; move it away")
    return identity
