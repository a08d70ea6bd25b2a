"""Keeps a window of blocks in flight until there is no work left. Its memory does not grow with the volume.

work (an iterator) --> window --> three tasks each --> inbox --> done, set aside, or tried once more
                         ^                               |
                         +---------- makes room ---------+

Near the end, when no work is left to launch, what is late is given to a worker that has nothing to do as
well. The first of the two counts. Both write the same voxels, whole shards at a time, so neither can spoil
what the other wrote.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from queue import Empty, SimpleQueue
from typing import TypeAlias

from dask.typing import Key
from distributed import Client, Future
from distributed.scheduler import KilledWorker

from vemdiffuse_pipe.cluster import signals
from vemdiffuse_pipe.errors import InputError, StorageFullError
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.running.dask.graph import block_graph
from vemdiffuse_pipe.running.dask.worker import FAILED_ON
from vemdiffuse_pipe.running.durations import BlockDurations
from vemdiffuse_pipe.running.outcomes import FailurePolicy, Reporter

GRACE_S = 5.0  # where nothing is hoped for, for blocks in flight to end by themselves
LOOK_S = 0.5  # between two looks for a worker that has nothing to do

KILLED = "KilledWorker: each worker that had this block died: out of memory, or of a crash in a library"

# Attempts: with others; again, alone; beside one that is late; on another worker than the one it failed on.
FIRST, ALONE, COPY, ELSEWHERE = 1, 2, 3, 4

# Futures that ended, and signals. Not dask's as_completed: nothing can wake it when a signal arrives, and
# SimpleQueue.put is the one call that is safe inside a signal handler.
Done: TypeAlias = "Future[None]"
Arrival: TypeAlias = "Done | signal.Signals"
Inbox: TypeAlias = "SimpleQueue[Arrival]"


OnCopy: TypeAlias = Callable[[Work, str], None]


def unheard(work: Work, worker: str) -> None:
    """Hears nothing."""


def drive(
    client: Client,
    key: str,
    work: Iterator[Work],
    window: int | Callable[[], int],
    reporter: Reporter,
    inbox: Inbox,
    on_copy: OnCopy = unheard,
) -> str:
    """Do all `work` and report each piece. What ended it early, else ''.

    A signal does, and so do MAX_FAILED pieces in a row that failed for no reason of their own, or
    MAX_IN_A_ROW because something transient did not pass; none of these is set aside.

    `window`: blocks in flight, or what says how many may be now. `inbox`: where signals arrive, if any do.
    `on_copy`: hears what was given to a second worker, and which.
    Raises StorageFullError and InputError, after which no block could be written, as they come.
    """
    endings = FailurePolicy(reporter)
    flight = _Flight(client, key, inbox, endings)
    suspects: deque[Work] = deque()
    near_end = False
    while True:
        most = window() if callable(window) else window
        room = max(0, most - len(flight))
        near_end = flight.launch(islice(work, room), FIRST) < room or near_end
        if not len(flight) and not suspects:
            endings.settle()
            return ""
        if not len(flight):  # one at a time: whoever kills a worker now is alone with it
            flight.launch([suspects.popleft()], ALONE)
        ended, received = _all_waiting(inbox, flight.copy_what_is_late(on_copy) if near_end else None)
        suspects.extend(flight.settle(ended))
        ended.clear()  # dask does again what a worker that leaves has done, while somebody holds its future
        stopped = f"{received.name} was received" if received is not None else endings.hopeless()
        if stopped:
            _drain(flight, inbox, GRACE_S if received is None else signals.GRACE_S[received])
            return stopped


@dataclass(frozen=True, slots=True)
class _Attempt:
    work: Work
    number: int
    future: Done
    since: float


class _Flight:
    """The work that dask holds now."""

    def __init__(self, client: Client, key: str, inbox: Inbox, endings: FailurePolicy) -> None:
        self._client = client
        self._endings = endings
        self._key = key
        self._inbox = inbox
        self._attempts: dict[Key, _Attempt] = {}
        self._copied: set[Work] = set()
        self._pace = BlockDurations()
        self._look_at = 0.0

    def __len__(self) -> int:
        return len(self._attempts)

    def launch(self, work: Iterable[Work], attempt: int, workers: Sequence[str] = ()) -> int:
        """Hand work to dask, all of it in one message; how many pieces there were.

        `workers`: who should do it, for as long as one of them lives; anybody where none is named.
        """
        pieces = list(work)
        graphs = [block_graph(self._key, piece, attempt) for piece in pieces]
        if not graphs:
            return 0
        futures = self._client.compute(
            graphs, optimize_graph=False, workers=workers or None, allow_other_workers=bool(workers)
        )
        for piece, future in zip(pieces, futures, strict=True):
            self._attempts[future.key] = _Attempt(piece, attempt, future, time.monotonic())
            future.add_done_callback(self._inbox.put)
        return len(pieces)

    def copy_what_is_late(self, on_copy: OnCopy) -> float | None:
        """Give what is late to idle workers too. Seconds until it is worth looking again, None for never."""
        late_after_s, now = self._pace.late_after_s(), time.monotonic()
        if late_after_s == float("inf"):
            return None
        if now < self._look_at:
            return self._look_at - now
        alone = [e for e in self._attempts.values() if e.number == FIRST and e.work not in self._copied]
        late = [each for each in alone if now - each.since >= late_after_s]
        if late:
            idle = [worker for worker, tasks in self._client.processing().items() if not tasks]
            for each, worker in zip(late, idle, strict=False):
                self._copied.add(each.work)
                self.launch([each.work], COPY, [worker])
                on_copy(each.work, worker)
        first = min((each.since for each in alone), default=now)
        self._look_at = max(now + LOOK_S, first + late_after_s)
        return self._look_at - now

    def settle(self, futures: list[Done]) -> list[Work]:
        """Report what ended. What may have died of its neighbour is returned: it deserves a second chance."""
        suspects = []
        for future in futures:
            ended = self._attempts.pop(future.key, None)
            if ended is None:  # the other one of the two was first
                continue
            work, twin = ended.work, self._twin(ended)
            error = None if future.status == "finished" else future.exception()
            if error is None:
                self._drop(twin)
                self._pace.add(time.monotonic() - ended.since)
                self._endings.done(work)
            elif twin is not None and not isinstance(error, StorageFullError | InputError):
                continue  # the other one may do better
            elif isinstance(error, KilledWorker) and ended.number != ALONE:
                suspects.append(work)
            elif ended.number == FIRST and (others := self._others(error)):
                self.launch([work], ELSEWHERE, others)  # it may be the worker's fault
            elif isinstance(error, KilledWorker):
                self._endings.blame(work, error, min(ended.number, 2), KILLED)
            else:
                self._endings.failed(work, error, min(ended.number, 2))
        return suspects

    def _others(self, error: BaseException) -> list[str]:
        """The workers that did not fail with `error`; none where it would fail on any of them."""
        if isinstance(error, StorageFullError | InputError) or not hasattr(error, FAILED_ON):
            return []
        return [worker for worker in self._client.processing() if worker != getattr(error, FAILED_ON)]

    def _twin(self, ended: _Attempt) -> _Attempt | None:
        if ended.work not in self._copied:
            return None
        return next((each for each in self._attempts.values() if each.work == ended.work), None)

    def _drop(self, attempt: _Attempt | None) -> None:
        if attempt is not None:
            del self._attempts[attempt.future.key]
            self._client.cancel([attempt.future])

    def cancel(self) -> None:
        """Give back what has not begun, and forget the rest."""
        self._client.cancel([each.future for each in self._attempts.values()])


def _drain(flight: _Flight, inbox: Inbox, grace_s: float) -> None:
    """Let blocks in flight end for a while, then give them back."""
    deadline = time.monotonic() + grace_s
    while len(flight) and (left_s := deadline - time.monotonic()) > 0:
        try:
            arrival = inbox.get(timeout=left_s)
        except Empty:
            break
        if isinstance(arrival, Future):
            flight.settle([arrival])
    flight.cancel()


def _all_waiting(inbox: Inbox, at_most_s: float | None) -> tuple[list[Done], signal.Signals | None]:
    """What has arrived, at least one thing: until then, or for `at_most_s`, the driver sleeps."""
    try:
        arrivals = [inbox.get(timeout=at_most_s)]
    except Empty:
        return [], None
    while not inbox.empty():
        arrivals.append(inbox.get())
    received = [arrival for arrival in arrivals if isinstance(arrival, signal.Signals)]
    return [a for a in arrivals if isinstance(a, Future)], received[0] if received else None
