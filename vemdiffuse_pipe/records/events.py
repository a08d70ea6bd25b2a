"""What happens in a run, as typed events: one vocabulary for the journal, the progress bar and `events`.

A listener is called from several threads, but never by two at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import TypeAlias

from vemdiffuse_pipe.geometry.box import Box


@dataclass(frozen=True, slots=True)
class FailedBlock:
    """A block, or the part of it that was missing, that is marked failed."""

    block_index: int
    """Linear index of the block, z slowest."""
    output_box: Box
    """What was to be written, voxels of the output, zyx."""
    reason: str
    """Class and first line of the last error."""
    n_attempts: int
    """Attempts of all processes together."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The state of the output when a run is over."""

    n_blocks: int
    """Blocks of the output."""
    n_done: int
    """Blocks that are complete now."""
    n_rendered: int
    """Pieces of work that this call wrote: a block of which only parts were missing counts once a part."""
    failed_blocks: tuple[FailedBlock, ...]
    """Blocks marked failed, ascending."""
    stopped: str = ""
    """Why the run stopped before its work was done, in one sentence; '' where it did not."""
    drained: bool = False
    """True where the run was asked to stop, or its time was nearly over, and it finished what it had
    started.
    """
    n_skipped: int = 0
    """Blocks outside the mask."""
    interrupted: bool = False
    """True where the run was interrupted from the keyboard."""

    @property
    def is_complete(self) -> bool:
        """True where every block that is wanted is done."""
        return self.n_done + self.n_skipped == self.n_blocks

    @property
    def exit_code(self) -> int:
        """0 where every block is complete, or a drained run will complete it when it is rerun; else 1."""
        can_resume = self.drained and not self.failed_blocks
        return 0 if self.is_complete or can_resume else 1


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run is about to start its first block."""

    title: str
    """What is made; on a second line the device, where the machine decides it."""
    digest: str
    """The identity of the run, 16 hexadecimal digits."""
    engine: str
    """Where the work is done: 'threads', 'part 3/8', 'local', 'slurm', an address."""
    workers: int
    """Workers of this run."""
    n_missing: int
    """Blocks that this process has to do."""
    n_voxels: int
    """Voxels of the output in these blocks."""


@dataclass(frozen=True, slots=True)
class DashboardServed:
    """Dask's dashboard can be opened from this machine."""

    address: str
    """An http address."""


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """A worker process is ready for blocks."""

    device: str
    """'cpu', or the GPU and its name."""


@dataclass(frozen=True, slots=True)
class WorkerStopped:
    """A worker process is closed."""


@dataclass(frozen=True, slots=True)
class PlanesDone:
    """A part of a block is rendered. Emitted only where blocks are rendered by this process."""

    n_voxels: int
    """Voxels of the output in that part."""


@dataclass(frozen=True, slots=True)
class BlockDone:
    """A block is stored and has its receipt."""

    block_index: int
    """Linear index of the block."""
    n_voxels: int
    """Voxels of the output that were written."""


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """One attempt at a stage of a block failed for a transient reason."""

    block_index: int
    """Linear index of the block."""
    reason: str
    """Class and first line of the error."""
    attempt: int
    """The number of the attempt, from 1."""
    stage: str
    """'read', 'render', 'write' or 'receipt'."""


@dataclass(frozen=True, slots=True)
class BlockFailed:
    """A block failed in this process. It is retried, here or by another process."""

    block_index: int
    """Linear index of the block."""
    reason: str
    """Class and first line of the error."""
    n_attempts: int
    """Attempts of this process."""


@dataclass(frozen=True, slots=True)
class BlockMarkedFailed:
    """A block is marked failed: it is left out until `retry`."""

    block: FailedBlock
    """What failed, and why."""


@dataclass(frozen=True, slots=True)
class BackupTaskStarted:
    """A straggler is rendered by a second worker too; the first result counts."""

    block_index: int
    """Linear index of the block."""
    worker: str
    """Address of the second worker."""


@dataclass(frozen=True, slots=True)
class RunStopped:
    """A run stopped with an error: the last event of that run."""

    reason: str
    """Class and first line of the error."""


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The last event of a run that came to its end."""

    outcome: Outcome
    """The state of the output."""


Event: TypeAlias = (
    RunStarted
    | DashboardServed
    | WorkerStarted
    | WorkerStopped
    | PlanesDone
    | BlockDone
    | AttemptFailed
    | BlockFailed
    | BlockMarkedFailed
    | BackupTaskStarted
    | RunStopped
    | RunEnded
)
Listener: TypeAlias = Callable[[Event], None]


def silent(event: Event) -> None:
    """The listener that does nothing."""


def to_all(*listeners: Listener) -> Listener:
    """A listener that passes each event to all `listeners`, one event at a time."""
    lock = Lock()

    def emit(event: Event) -> None:
        with lock:
            for listener in listeners:
                listener(event)

    return emit
