"""Several processes that train one network, as torchrun starts them: each takes its share of every batch.

    torchrun --nproc-per-node 4 -m vemdiffuse_pipe train train.toml

Gradients are averaged over the processes, so the steps are those of one process with the whole batch. The
first process alone validates and writes; what it decides, all do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from vemdiffuse_pipe.errors import ConfigError

MAX_WAIT = timedelta(hours=2)  # while the first process validates


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """This process among `size`; `rank` counts from 0. `device`: what it works on."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """True for the one that validates and writes."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """Which samples of a batch are this process's."""
        mine = batch_size // self.size
        return slice(self.rank * mine, (self.rank + 1) * mine)

    def together(self, network: nn.Module) -> nn.Module:
        """The network, its gradients averaged over the processes. Called at once by all."""
        return DistributedDataParallel(network) if self.size > 1 else network

    def mean(self, value: float) -> float:
        """The mean over the processes of what each of them has."""
        return self._reduced(value) / self.size if self.size > 1 else value

    def decide(self, value: int) -> int:
        """The value of the first process, the same for all."""
        return int(self._reduced(value if self.is_first else 0)) if self.size > 1 else value

    def _reduced(self, value: float) -> float:
        shared = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(shared)
        return float(shared)


@contextmanager
def joined(device: str, batch_size: int) -> Iterator[ProcessGroup]:
    """This process among those that torchrun started; alone where it started none.

    Raises ConfigError where the batch cannot be shared out evenly.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if batch_size % size:
        raise ConfigError(
            f"train.batch_size = {batch_size} is not shared evenly by {size} processes; "
            f"take {-(-batch_size // size) * size}"
        )
    own = _device(device)
    if size > 1 and device == "cuda":
        own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    _check(own)
    if size == 1:
        yield ProcessGroup(own)
        return
    distributed.init_process_group("nccl" if own.type == "cuda" else "gloo", timeout=MAX_WAIT)
    try:
        yield ProcessGroup(own, distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()


def _device(name: str) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError:
        raise ConfigError(f"train.device = {name[:80]!r} is no device; give cpu or cuda") from None


def _check(device: torch.device) -> None:
    """Raises ConfigError unless something can be computed there."""
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:  # AssertionError: built without CUDA
        first, *_ = str(error).splitlines() or [type(error).__name__]
        raise ConfigError(
            f"train.device = {str(device)!r} cannot be used here ({first[:120]}); give cpu, or one that this "
            "machine and this torch have"
        ) from None
