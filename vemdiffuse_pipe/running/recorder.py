"""Keeps on disk how each block ended, and emits it as an event."""

from __future__ import annotations

from vemdiffuse_pipe.records.events import (
    BackupTaskStarted,
    BlockDone,
    BlockFailed,
    BlockMarkedFailed,
    Listener,
)
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.running.progress import Progress


class RunRecorder:
    """The reporter of a run: marks failures on disk, counts what is done, emits events."""

    def __init__(self, progress: Progress, emit: Listener) -> None:
        self._progress = progress
        self._emit = emit
        self.n_finished = 0  # pieces of work that are done or marked failed

    def done(self, work: Work) -> None:
        """The work is stored and has its receipt."""
        self.n_finished += 1
        self._progress.enter_done(work)
        self._emit(BlockDone(work.block_index, work.output_box.n_voxels))

    def mark_failed(self, work: Work, reason: str, n_attempts: int) -> None:
        """The work is left out until `retry`."""
        self.n_finished += 1
        self._emit(BlockMarkedFailed(self._progress.mark_failed(work, reason, n_attempts)))

    def failed_here(self, work: Work, reason: str, n_attempts: int) -> None:
        """The work failed in this process. It is marked failed where another process failed at it too."""
        self._emit(BlockFailed(work.block_index, reason, n_attempts))
        failed_block = self._progress.enter_failed(work, reason, n_attempts)
        if failed_block is not None:
            self._emit(BlockMarkedFailed(failed_block))

    def backup_started(self, work: Work, worker: str) -> None:
        """The work is a straggler, and `worker` does it too."""
        self._emit(BackupTaskStarted(work.block_index, worker))
