"""How work ends, and who hears of it: the same whoever does the work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event as Flag
from threading import Lock
from typing import Protocol

from vemdiffuse_pipe.errors import InputError, StorageFullError, VemdiffuseError
from vemdiffuse_pipe.plan.plan import Plan, digest
from vemdiffuse_pipe.records.events import BlockDone, BlockSetAside, Event, Listener
from vemdiffuse_pipe.records.journal import Journal
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.running.progress import Progress
from vemdiffuse_pipe.running.retries import GaveUpError, reason_of

MOST_IN_A_ROW = 16


class Reporter(Protocol):
    """Hears how each piece of work ended."""

    def done(self, work: Work) -> None:
        """It is stored and has its receipt."""
        ...

    def set_aside(self, work: Work, reason: str, n_attempts: int) -> None:
        """It was given up."""
        ...


class Endings:
    """Reports how each piece ended, and says when there is no use in going on."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._in_a_row: list[str] = []

    def done(self, work: Work) -> None:
        """It is stored and has its receipt."""
        self._reporter.done(work)
        self._in_a_row.clear()

    def failed(self, work: Work, error: BaseException, n_attempts: int = 1, reason: str = "") -> None:
        """Whatever it was, and whoever's fault: the block is given up, the run goes on.

        But StorageFullError and InputError, after which no block could be written, are raised as they are.
        """
        if isinstance(error, StorageFullError | InputError):
            raise error
        reason = reason or reason_of(error)
        self._reporter.set_aside(work, reason, getattr(error, "n_attempts", n_attempts))
        if isinstance(error, GaveUpError):
            self._in_a_row.append(reason)

    def hopeless(self) -> str:
        """A sentence where too many in a row were given up because something transient did not pass, else ''.

        A store that answers nobody is no reason to give up a million blocks, one by one.
        """
        if len(self._in_a_row) < MOST_IN_A_ROW:
            return ""
        return f"{len(self._in_a_row)} blocks in a row had to be given up ({self._in_a_row[-1]})"


class Bookkeeper:
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

    def set_aside(self, work: Work, reason: str, n_attempts: int) -> None:
        """It was given up."""
        self.journal.tell("set aside", work.block_index, reason, attempts=n_attempts)
        self.tell(BlockSetAside(self._progress.enter_set_aside(work, reason, n_attempts)))

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
