"""What a run tells while it works. A listener is called from several threads, but never by two at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.plan.plan import Plan


@dataclass(frozen=True, slots=True)
class FailedBlock:
    """A block, or what it still lacked, that was given up: why, and after how many attempts."""

    block_index: int
    output_box: Box
    reason: str
    n_attempts: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `n_done`: blocks that are complete now; `n_skipped`: those outside the mask, if any.

    `n_rendered`: how many this call wrote, where a block of which only parts were missing counts once a part.

    `stopped`: why the run ended before its work was done, in one sentence; empty where it did not.
    `drained`: it was asked to make way, or its time was nearly over, and it did so in order.
    `interrupted`: somebody did not want to wait for it.
    """

    n_blocks: int
    n_done: int
    n_rendered: int
    failed_blocks: tuple[FailedBlock, ...]
    stopped: str = ""
    drained: bool = False
    n_skipped: int = 0
    interrupted: bool = False

    @property
    def is_complete(self) -> bool:
        """True where every block that is wanted is done."""
        return self.n_done + self.n_skipped == self.n_blocks

    @property
    def exit_code(self) -> int:
        """0 where every block is complete, or what is not will be when it is run again; else 1."""
        makes_way = self.drained and not self.failed_blocks
        return 0 if self.is_complete or makes_way else 1


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The output is open; `n_missing` blocks will be taken up, `n_voxels` of the output are theirs."""

    plan: Plan
    n_missing: int
    n_voxels: int


@dataclass(frozen=True, slots=True)
class DashboardServed:
    """Dask shows its tasks and workers at this address, to whoever is on this machine."""

    address: str


@dataclass(frozen=True, slots=True)
class PlanesDone:
    """A part of a block is rendered. Heard only where the worker is a part of this process."""

    n_voxels: int


@dataclass(frozen=True, slots=True)
class BlockDone:
    """A block is stored and has its receipt, which says what it cost. `n_voxels`: what was written of it."""

    block_index: int
    n_voxels: int


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """One attempt at a block failed, and it will be tried again. Heard only where `PlanesDone` is."""

    block_index: int
    reason: str
    attempt: int


@dataclass(frozen=True, slots=True)
class BlockMarkedFailed:
    """A block is given up until `retry`."""

    block: FailedBlock


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The last event of a run."""

    outcome: Outcome


Event: TypeAlias = (
    RunStarted | DashboardServed | PlanesDone | BlockDone | AttemptFailed | BlockMarkedFailed | RunEnded
)
Listener: TypeAlias = Callable[[Event], None]


def silent(event: Event) -> None:
    """The listener that does nothing."""
