"""How work ends, and who hears of it: the same whoever does the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event as Flag
from threading import Lock
from typing import NamedTuple, Protocol

from vemdiffuse_pipe.errors import DataError, InputError, StorageFullError, VemdiffuseError
from vemdiffuse_pipe.plan.plan import Plan, digest
from vemdiffuse_pipe.records.events import BlockDone, BlockMarkedFailed, Event, Listener
from vemdiffuse_pipe.records.journal import Journal
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.running.progress import Progress
from vemdiffuse_pipe.storage.retry import RetriesExhaustedError, reason_of

MAX_IN_A_ROW = 16  # given up because something transient did not pass
MAX_FAILED = 3  # blocks in a row, before a process takes itself for broken


class Reporter(Protocol):
    """Hears how each piece of work ended."""

    def done(self, work: Work) -> None:
        """It is stored and has its receipt."""
        ...

    def mark_failed(self, work: Work, reason: str, n_attempts: int) -> None:
        """It was given up."""
        ...


class _Failure(NamedTuple):
    work: Work
    error: BaseException
    reason: str
    n_attempts: int


class FailurePolicy:
    """Reports how each piece ended, and says when there is no use in going on.

    What failed waits until something else is done: then it is the block's fault, and not the machine's. What
    cannot be read is the data's fault at once.
    """

    def __init__(self, reporter: Reporter, fail: Callable[[Work, str, int], None] | None = None) -> None:
        """`fail`: hears what failed, where that alone does not set it aside."""
        self._reporter = reporter
        self._fail = fail or reporter.mark_failed
        self._row: list[_Failure] = []
        self._is_broken = False

    def done(self, work: Work) -> None:
        """It is stored and has its receipt."""
        self._reporter.done(work)
        self.settle()

    def failed(self, work: Work, error: BaseException, n_attempts: int = 1, reason: str = "") -> None:
        """Whatever it was: the run goes on without the block.

        But StorageFullError and InputError, after which no block could be written, are raised as they are.
        """
        failure = _failure(work, error, n_attempts, reason)
        if isinstance(error, DataError):
            self._fail(work, failure.reason, failure.n_attempts)
        elif not self._is_broken:
            self._row.append(failure)

    def blame(self, work: Work, error: BaseException, n_attempts: int = 1, reason: str = "") -> None:
        """It is sure that the block is at fault: it is set aside. Raises as `failed`."""
        failure = _failure(work, error, n_attempts, reason)
        self._reporter.mark_failed(work, failure.reason, failure.n_attempts)

    def settle(self) -> None:
        """This machine works: what failed before, failed."""
        row, self._row = self._row, []
        for failure in row:
            self._fail(failure.work, failure.reason, failure.n_attempts)

    def hopeless(self) -> str:
        """A sentence where it seems that this machine fails, or the store, and not the blocks, else ''.

        No block is to be blamed for that: what failed in that row is forgotten. A store that answers nobody,
        or a broken GPU, is no reason to give up a million blocks, one by one.
        """
        transient = [each for each in self._row if isinstance(each.error, RetriesExhaustedError)]
        failed = [each for each in self._row if not isinstance(each.error, RetriesExhaustedError)]
        if len(failed) < MAX_FAILED and len(transient) < MAX_IN_A_ROW:
            return ""
        self._row, self._is_broken = [], True
        if len(failed) >= MAX_FAILED:
            return f"{len(failed)} blocks in a row failed here, and are left to others ({failed[-1].reason})"
        return f"{len(transient)} blocks in a row had to be given up ({transient[-1].reason})"


def _failure(work: Work, error: BaseException, n_attempts: int, reason: str) -> _Failure:
    """Raises StorageFullError and InputError."""
    if isinstance(error, StorageFullError | InputError):
        raise error
    return _Failure(work, error, reason or reason_of(error), getattr(error, "n_attempts", n_attempts))


class RunRecorder:
    """A reporter that keeps on disk and tells the listener how each block ended."""

    def __init__(self, progress: Progress, listener: Listener, journal: Journal) -> None:
        self.tell = listener
        self.journal = journal
        self._progress = progress

    @contextmanager
    def told(self, plan: Plan, engine: str, *, workers: int = 1, dashboard: str = "") -> Iterator[HowItEnded]:
        """Enter into the journal that a run begins, and at the end of the context how it ended."""
        n_missing = self._progress.n_missing()
        run = digest(plan.identity())
        self.journal.tell(
            "run started", run=run, engine=engine, workers=workers, n_missing=n_missing, dashboard=dashboard
        )
        ended = HowItEnded()
        try:
            yield ended
        except VemdiffuseError as error:
            self.journal.tell("run stopped", reason=reason_of(error))
            raise
        self.journal.tell("run stopped" if ended.stopped else "run ended", reason=ended.stopped)

    def done(self, work: Work) -> None:
        """It is stored and has its receipt."""
        self._progress.enter_done(work)
        self.tell(BlockDone(work.block_index, work.output_box.n_voxels))

    def mark_failed(self, work: Work, reason: str, n_attempts: int) -> None:
        """It was given up."""
        self.journal.tell("set aside", work.block_index, reason, attempts=n_attempts)
        self.tell(BlockMarkedFailed(self._progress.mark_failed(work, reason, n_attempts)))

    def failed_here(self, work: Work, reason: str, n_attempts: int) -> None:
        """This process failed at it, and leaves it to others; it is given up where another has failed too."""
        self.journal.tell("block failed", work.block_index, reason, attempts=n_attempts)
        failed_blocks = self._progress.enter_failed(work, reason, n_attempts)
        if failed_blocks is not None:
            self.journal.tell("set aside", work.block_index, reason, attempts=failed_blocks.n_attempts)
            self.tell(BlockMarkedFailed(failed_blocks))

    def copied(self, work: Work, worker: str) -> None:
        """It was late, and `worker` does it too."""
        self.journal.tell("given to a second worker", work.block_index, worker=worker)


@dataclass
class HowItEnded:
    """`stopped`: what ended a run early, else ''."""

    stopped: str = ""


class EndedError(VemdiffuseError):
    """Rendering went on after the run had ended."""


def until(ended: Flag, tell: Listener) -> Listener:
    """Passes events on; after the end, it is how a render that nobody waits for comes to its own."""

    def tell_or_end(event: Event) -> None:
        if ended.is_set():
            raise EndedError("the run has ended")
        tell(event)

    return tell_or_end


def one_at_a_time(listener: Listener) -> Listener:
    """The listener, behind a lock: worker threads call it too."""
    lock = Lock()

    def tell(event: Event) -> None:
        with lock:
            listener(event)

    return tell
