"""Keeps a window of blocks in flight until there is no work left. Its memory does not grow with the volume.

work (an iterator) --> window --> three tasks each --> inbox --> done, set aside, or tried once more
                         ^                               |
                         +---------- makes room ---------+
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Protocol, TypeAlias

from dask.typing import Key
from distributed import Client, Future
from distributed.scheduler import KilledWorker

from vemdiffuse_pipe.errors import InputError, StorageFullError
from vemdiffuse_pipe.running.graph import block_graph
from vemdiffuse_pipe.running.retries import GaveUpError, reason_of
from vemdiffuse_pipe.running.shards import Work

MOST_IN_A_ROW = 16
GRACE_S = 5.0  # after a signal, for blocks in flight to end by themselves

# Futures that ended, and signals. Not dask's as_completed: nothing can wake it when a signal arrives, and
# SimpleQueue.put is the one call that is safe inside a signal handler.
Done: TypeAlias = "Future[None]"
Arrival: TypeAlias = "Done | signal.Signals"
Inbox: TypeAlias = "SimpleQueue[Arrival]"


class Reporter(Protocol):
    """Hears how each piece of work ended."""

    def done(self, work: Work) -> None:
        """It is stored and has its receipt."""
        ...

    def set_aside(self, work: Work, reason: str, n_attempts: int) -> None:
        """It was given up."""
        ...


def drive(
    client: Client, key: str, work: Iterator[Work], window: int, reporter: Reporter, inbox: Inbox
) -> str:
    """Do all `work` and report each piece. What ended it early, else ''.

    A signal does, and so do MOST_IN_A_ROW pieces in a row that were given up because something transient did
    not pass: a store that answers nobody is no reason to give up a million blocks, one by one.

    `inbox`: where signals arrive, if any do. Raises StorageFullError and InputError, after which no block
    could be written, as they come.
    """
    flight = _Flight(client, key, inbox)
    suspects: deque[Work] = deque()
    while True:
        flight.launch(islice(work, window - len(flight)), attempt=1)
        if not len(flight) and not suspects:
            return ""
        if not len(flight):  # one at a time: whoever kills a worker now is alone with it
            flight.launch([suspects.popleft()], attempt=2)
        ended, received = _all_waiting(inbox)
        suspects.extend(flight.settle(ended, reporter))
        ended.clear()  # dask does again what a worker that leaves has done, while somebody holds its future
        stopped = f"{received.name} was received" if received is not None else flight.hopeless()
        if stopped:
            _drain(flight, inbox, reporter)
            return stopped


class _Flight:
    """The work that dask holds now."""

    def __init__(self, client: Client, key: str, inbox: Inbox) -> None:
        self._client = client
        self._key = key
        self._inbox = inbox
        self._attempts: dict[Key, tuple[Work, int, Done]] = {}
        self._in_a_row: list[str] = []

    def __len__(self) -> int:
        return len(self._attempts)

    def launch(self, work: Iterable[Work], attempt: int) -> None:
        """Hand work to dask, all of it in one message."""
        pieces = list(work)
        graphs = [block_graph(self._key, piece, attempt) for piece in pieces]
        futures = self._client.compute(graphs, optimize_graph=False) if graphs else []
        for piece, future in zip(pieces, futures, strict=True):
            self._attempts[future.key] = (piece, attempt, future)
            future.add_done_callback(self._inbox.put)

    def settle(self, futures: list[Done], reporter: Reporter) -> list[Work]:
        """Report what ended. What may have died of its neighbour is returned: it deserves a second chance."""
        suspects = []
        for future in futures:
            work, attempt, _ = self._attempts.pop(future.key)
            error = None if future.status == "finished" else future.exception()
            if error is None:
                reporter.done(work)
                self._in_a_row.clear()
            elif isinstance(error, StorageFullError | InputError):
                raise error
            elif isinstance(error, KilledWorker) and attempt == 1:
                suspects.append(work)
            else:  # whatever it was, and whoever's fault: the block is given up, the run goes on
                reporter.set_aside(work, _reason(error), getattr(error, "n_attempts", attempt))
                if isinstance(error, GaveUpError):
                    self._in_a_row.append(_reason(error))
        return suspects

    def hopeless(self) -> str:
        """A sentence where too many were given up in a row, else ''."""
        if len(self._in_a_row) < MOST_IN_A_ROW:
            return ""
        return f"{len(self._in_a_row)} blocks in a row had to be given up ({self._in_a_row[-1]})"

    def cancel(self) -> None:
        """Give back what has not begun, and forget the rest."""
        self._client.cancel([future for _, _, future in self._attempts.values()])


def _reason(error: BaseException) -> str:
    if isinstance(error, KilledWorker):
        return "KilledWorker: each worker that had this block died: out of memory, or of a crash in a library"
    return reason_of(error)


def _drain(flight: _Flight, inbox: Inbox, reporter: Reporter) -> None:
    """Let blocks in flight end for a moment, then give them back."""
    deadline = time.monotonic() + GRACE_S
    while len(flight) and (left_s := deadline - time.monotonic()) > 0:
        try:
            arrival = inbox.get(timeout=left_s)
        except Empty:
            break
        if isinstance(arrival, Future):
            flight.settle([arrival], reporter)
    flight.cancel()


def _all_waiting(inbox: Inbox) -> tuple[list[Done], signal.Signals | None]:
    """What has arrived, at least one thing: until then the driver sleeps."""
    arrivals = [inbox.get()]
    while not inbox.empty():
        arrivals.append(inbox.get())
    received = [arrival for arrival in arrivals if isinstance(arrival, signal.Signals)]
    return [a for a in arrivals if isinstance(a, Future)], received[0] if received else None
