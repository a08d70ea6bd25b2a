"""A run that is under way in this process: records are open, signals are received."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeAlias

from vemdiffuse_pipe.cluster import signals
from vemdiffuse_pipe.records.events import Listener, Outcome, to_all
from vemdiffuse_pipe.records.journal import Journal
from vemdiffuse_pipe.running.job import BlockJob
from vemdiffuse_pipe.running.progress import Progress
from vemdiffuse_pipe.running.recorder import RunRecorder
from vemdiffuse_pipe.running.stages import open_journal

# Signals, and what a runner puts there: SimpleQueue.put is the one call that is safe in a signal handler.
Inbox: TypeAlias = "SimpleQueue[object]"


@dataclass(slots=True)
class RunSession:
    """What a runner works with."""

    job: BlockJob
    """What is done."""
    progress: Progress
    """What is done and marked failed, and what is missing."""
    recorder: RunRecorder
    """Receives how each block ended."""
    journal: Journal
    """Heartbeats and the log of this process."""
    emit: Listener
    """Receives events: the journal and the caller's listener."""
    inbox: Inbox
    """Where signals arrive, and what the runner puts there."""
    received: signals.Received
    """The first signal that came, if one did."""
    is_out_of_time: bool = False
    """True where the runner stopped because its time was nearly over."""

    def outcome(self, stopped: str) -> Outcome:
        """The state of the output. `stopped`: why the runner stopped early, or ''."""
        drained = self.received.asks_to_drain or self.is_out_of_time
        return self.progress.outcome(stopped, drained=drained, interrupted=self.received.interrupts)


@contextmanager
def open_session(job: BlockJob, listener: Listener) -> Iterator[RunSession]:
    """A session for as long as the context lasts. Raises OutputError, DataError, TransientError."""
    inbox: Inbox = SimpleQueue()
    progress = Progress(job.records, job.digest, job.blocks, job.shards)
    journal = open_journal(job)
    emit = to_all(journal.on_event, listener)
    with signals.received(inbox.put) as received, closing(progress), journal:
        yield RunSession(job, progress, RunRecorder(progress, emit), journal, emit, inbox, received)
