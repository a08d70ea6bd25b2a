"""The training loop: data -> batch -> objective -> step -> state, and now and then a validation.

step      the batch of the step, a function of (seed, step), made ahead by a thread
  |       its loss, by the objective; gradients clipped; Adam; moving average
  |       every log_every steps: a line of the journal; a loss that is no number ends training
  |       every validate_every: the average, driven by the real sampler; the best is kept
  +-----  every save_every, and when it ends: the state, from which the same command resumes
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from vemdiffuse_pipe.errors import TrainingError
from vemdiffuse_pipe.models.checkpoint import on_device
from vemdiffuse_pipe.training.gaps import Batches, GapBatch
from vemdiffuse_pipe.training.objectives.draws import Draws, Objective
from vemdiffuse_pipe.training.prefetch import Prefetched
from vemdiffuse_pipe.training.processes import ProcessGroup
from vemdiffuse_pipe.training.settings import TrainTable
from vemdiffuse_pipe.training.state import Identity, TrainingState

Stopped = Literal["", "patience", "time", "interrupted"]
STOPS: tuple[Stopped, ...] = ("", "patience", "time", "interrupted")
Record = Mapping[str, object]


class Watcher(Protocol):
    """Receives what happens during training. Only the first of several processes calls it."""

    def start(self, step: int) -> None:
        """Training resumes after `step` steps; records of later steps will be emitted again."""
        ...

    def on_record(self, record: Record) -> None:
        """A line for the journal: `step`, and `loss` or `score`."""
        ...

    def validate(self, average: nn.Module, step: int) -> float | None:
        """The score of the averaged network, more is better; None where nothing was held back."""
        ...

    def keep(self, average: nn.Module, step: int) -> None:
        """Write the checkpoint: this is the best so far, or the last where none is better."""
        ...

    def is_interrupted(self) -> bool:
        """True from when training should end."""
        ...


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """What is trained on what, how, and where its state is kept."""

    network: nn.Module
    objective: Objective
    batches: Batches
    table: TrainTable
    state_file: Path
    identity: Identity
    lr: float
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """How training ended."""

    step: int
    """Steps done."""
    stopped: Stopped
    """Why it ended before its last step; empty where it did not."""
    best: float | None
    """Score of the best validation, dB; None without one."""
    best_step: int
    """The step of the best validation."""
    elapsed_s: float
    """Seconds of training, those before a resume included."""


def lr_at(table: TrainTable, lr: float, step: int) -> float:
    """Learning rate of `step`: linear warm-up, then constant, or a cosine to zero."""
    warm = min(1.0, (step + 1) / table.warmup)
    return (
        lr * warm * (0.5 * (1 + math.cos(math.pi * step / table.steps)) if table.lr_decay == "cosine" else 1)
    )


def train(job: TrainingJob, processes: ProcessGroup, watcher: Watcher) -> TrainingOutcome:
    """Train the network of `job` in place, from where its state was left.

    Raises TrainingError where the loss is no number, what reading the data raises, and StorageFullError; the
    state that was saved last is then still there.
    """
    return _Loop(job, processes, watcher).run()


class _Loop:
    """One call of `train`."""

    def __init__(self, job: TrainingJob, processes: ProcessGroup, watcher: Watcher) -> None:
        self.job, self.processes, self.watcher, self.table = job, processes, watcher, job.table
        on_device(job.network, processes.device)
        self.state = TrainingState(job.network, job.lr)
        self.state.restore(job.state_file)
        together = processes.together(job.network)
        if self.table.compile:
            together.compile()
        self.network = together
        self.share = processes.share(self.table.batch_size)
        self.started = job.clock() - self.state.progress.elapsed_s
        self.losses: list[Tensor] = []
        self.validated_at = -1
        if processes.is_first:
            watcher.start(self.state.progress.step)

    def run(self) -> TrainingOutcome:
        """All steps that are left."""
        steps = range(self.state.progress.step, self.table.steps)
        stopped = self._reason()
        if not stopped:
            with Prefetched(lambda step: self.job.batches.batch(step, self.share), steps) as batches:
                for step, batch in zip(steps, batches, strict=True):
                    self._learn(step, batch)
                    stopped = self._after(step + 1, batches)
                    if stopped:
                        break
        if stopped != "interrupted":
            self._finish()
        self._save()
        p = self.state.progress
        return TrainingOutcome(p.step, stopped, p.best, p.best_step, p.elapsed_s)

    def _learn(self, step: int, batch: GapBatch) -> None:
        draws = Draws.of(self.table.seed, step, self.table.batch_size, self.share)
        torch.manual_seed(hash((self.table.seed, step, self.processes.rank)))  # what networks drop
        loss = self.job.objective(self.network, _moved(batch, self.processes.device), draws)
        ema = min(self.table.ema, (step + 1) / (step + 10))
        self.state.learn(loss, lr_at(self.table, self.job.lr, step), self.table.clip, ema)
        self.losses.append(loss.detach())

    def _after(self, step: int, batches: Prefetched[GapBatch]) -> Stopped:
        """What is due after so many steps; why training should end, if it should."""
        table = self.table
        now = self.job.clock() - self.started
        self.state.progress = replace(self.state.progress, step=step, elapsed_s=now)
        is_due = [step % every == 0 for every in (table.log_every, table.validate_every, table.save_every)]
        if any(is_due) or step == table.steps:
            self._check_and_log(step, batches)
        if is_due[1]:
            self._validate(step)
        if is_due[2]:
            self._save()
        return self._reason() if self.processes.size == 1 or any(is_due) else ""

    def _check_and_log(self, step: int, batches: Prefetched[GapBatch]) -> None:
        loss = self.processes.mean(float(torch.stack(self.losses).mean())) if self.losses else 0.0
        self.losses.clear()
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} near step {step}; {self.job.state_file} is as it was saved before: "
                'give a smaller train.lr or train.clip, or train.precision = "float32"'
            )
        data, elapsed = self.job.batches, self.state.progress.elapsed_s
        decoded, used = data.n_bytes
        if self.processes.is_first:
            self.watcher.on_record(
                {
                    "step": step,
                    "loss": loss,
                    "lr": lr_at(self.table, self.job.lr, step - 1),
                    "seconds": round(elapsed, 3),
                    "waited_s": round(batches.waited_s, 3),
                    "read_per_used": round(decoded / max(1, used), 3),
                    "rejected_crops": data.n_rejected,
                }
            )

    def _validate(self, step: int) -> None:
        """Score the average; keep it where it is the best so far: all processes decide alike."""
        self.validated_at = step
        p = self.state.progress
        is_better = 0
        if self.processes.is_first:
            score = self.watcher.validate(self.state.average, step)
            if score is not None and (p.best is None or score > p.best):
                is_better = 1
                self.watcher.keep(self.state.average, step)
                p = replace(p, best=score)
        if self.processes.decide(is_better):
            self.state.progress = replace(p, best_step=step, n_since_best=0)
        else:
            self.state.progress = replace(p, n_since_best=p.n_since_best + 1)

    def _reason(self) -> Stopped:
        table, p = self.table, self.state.progress
        reason = 0
        if self.watcher.is_interrupted():
            reason = 3
        elif table.hours is not None and p.elapsed_s >= 3600 * table.hours:
            reason = 2
        elif table.patience is not None and p.n_since_best >= table.patience:
            reason = 1
        return STOPS[self.processes.decide(reason)]

    def _finish(self) -> None:
        """The last validation; without any, the last average is what is kept."""
        step = self.state.progress.step
        if self.validated_at != step and step != self.state.progress.best_step:
            self._validate(step)
        if self.processes.is_first and self.state.progress.best is None:
            self.watcher.keep(self.state.average, step)

    def _save(self) -> None:
        if self.processes.is_first:
            self.state.save(self.job.state_file, self.job.identity)


def _moved(batch: GapBatch, device: torch.device) -> GapBatch:
    """The batch with all its tensors on `device`, images channels-last."""

    def move(t: Tensor) -> Tensor:
        layout = torch.channels_last if t.dim() == 4 else torch.preserve_format
        return t.to(device=device, memory_format=layout, non_blocking=True)

    values = {f.name: getattr(batch, f.name) for f in fields(batch)}
    moved: dict[str, Any] = {name: move(v) for name, v in values.items() if isinstance(v, Tensor)}
    return replace(batch, **moved)
