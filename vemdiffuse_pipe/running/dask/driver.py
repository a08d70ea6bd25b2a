"""Keeps a window of blocks in flight until there is no work left. Its memory does not grow with the volume.

work (an iterator) --> window --> three tasks each --> inbox --> done, marked failed, or retried
                         ^                               |
                         +---------- makes room ---------+

Near the end, when no work is left to launch, a straggler is given to an idle worker as well: a backup task.
The first of the two counts. Both write the same voxels, whole shards at a time, so neither can spoil what the
other wrote.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from queue import Empty
from typing import TypeAlias

from dask.typing import Key
from distributed import Client, Future, KilledWorker

from vemdiffuse_pipe.cluster import signals
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.running.dask.graph import block_graph
from vemdiffuse_pipe.running.dask.worker import FAILED_ON
from vemdiffuse_pipe.running.durations import BlockDurations
from vemdiffuse_pipe.running.failure_policy import FailurePolicy, Reporter
from vemdiffuse_pipe.running.rules import Action, after_failure
from vemdiffuse_pipe.running.session import Inbox

STOP_GRACE_S = 5.0  # for blocks in flight, where the machine is faulty
RECHECK_S = 0.5  # between two looks for an idle worker

KILLED = "KilledWorker: each worker that had this block crashed: out of memory, or a crash in a library"

# The number of an attempt, as it stands in the names of its tasks.
FIRST, ALONE, BACKUP, RETRY = 1, 2, 3, 4

Done: TypeAlias = "Future[None]"
OnBackup: TypeAlias = Callable[[Work, str], None]


def no_listener(work: Work, worker: str) -> None:
    """Does nothing."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where tasks go."""

    client: Client
    """Of the cluster."""
    key: str
    """Of the run: workers find its job by it."""
    verb: str = "render"
    """What computing a block is called."""


def drive(
    target: Target,
    work: Iterator[Work],
    window: int | Callable[[], int],
    reporter: Reporter,
    inbox: Inbox,
    on_backup: OnBackup = no_listener,
) -> str:
    """Do all `work` and report each piece. Why it stopped early, in one sentence, or ''.

    `window`: blocks in flight, or how many there may be now. `inbox`: where signals and finished futures
    arrive. `on_backup`: receives stragglers that a second worker was given, and its address.
    Raises StorageFullError and InputError, after which no block could be written.
    """
    policy = FailurePolicy(reporter)
    flight = _Flight(target, inbox, policy)
    suspects: deque[Work] = deque()
    is_near_end = False
    while True:
        room = max(0, (window() if callable(window) else window) - len(flight))
        is_near_end = flight.launch(islice(work, room), FIRST) < room or is_near_end
        if not len(flight) and not suspects:
            policy.confirm()
            return ""
        if not len(flight):  # one at a time: whoever crashes a worker now is alone with it
            flight.launch([suspects.popleft()], ALONE)
        finished, received = _all_waiting(inbox, flight.start_backups(on_backup) if is_near_end else None)
        suspects.extend(flight.collect(finished))
        finished.clear()  # dask repeats what a lost worker has done, while its future is held
        stopped = f"{received.name} was received" if received is not None else policy.stop_reason()
        if stopped:
            _drain(flight, inbox, STOP_GRACE_S if received is None else signals.GRACE_S[received])
            return stopped


@dataclass(frozen=True, slots=True)
class _Attempt:
    work: Work
    number: int
    future: Done
    since: float


class _Flight:
    """The work that dask has now."""

    def __init__(self, target: Target, inbox: Inbox, policy: FailurePolicy) -> None:
        self._target = target
        self._client = target.client
        self._policy = policy
        self._inbox = inbox
        self._attempts: dict[Key, _Attempt] = {}
        self._backed_up: set[Work] = set()
        self._durations = BlockDurations()
        self._next_recheck = 0.0

    def __len__(self) -> int:
        return len(self._attempts)

    def launch(self, work: Iterable[Work], number: int, workers: Sequence[str] = ()) -> int:
        """Hand work to dask in one message; how many pieces there were.

        `workers`: which should do it, for as long as one of them lives; any where none is named.
        """
        pieces = list(work)
        graphs = [block_graph(self._target.key, self._target.verb, piece, number) for piece in pieces]
        if not graphs:
            return 0
        futures = self._client.compute(
            graphs, optimize_graph=False, workers=workers or None, allow_other_workers=bool(workers)
        )
        for piece, future in zip(pieces, futures, strict=True):
            self._attempts[future.key] = _Attempt(piece, number, future, time.monotonic())
            future.add_done_callback(self._inbox.put)
        return len(pieces)

    def start_backups(self, on_backup: OnBackup) -> float | None:
        """Give stragglers to idle workers too. Seconds until the next look, None for never."""
        after_s, now = self._durations.straggler_after_s(), time.monotonic()
        if after_s == float("inf"):
            return None
        if now < self._next_recheck:
            return self._next_recheck - now
        first = [a for a in self._attempts.values() if a.number == FIRST and a.work not in self._backed_up]
        stragglers = [attempt for attempt in first if now - attempt.since >= after_s]
        if stragglers:
            idle = [worker for worker, tasks in self._client.processing().items() if not tasks]
            for attempt, worker in zip(stragglers, idle, strict=False):
                self._backed_up.add(attempt.work)
                self.launch([attempt.work], BACKUP, [worker])
                on_backup(attempt.work, worker)
        oldest = min((attempt.since for attempt in first), default=now)
        self._next_recheck = max(now + RECHECK_S, oldest + after_s)
        return self._next_recheck - now

    def collect(self, futures: list[Done]) -> list[Work]:
        """Report what finished; the work that is to be done alone, because its worker crashed."""
        suspects = []
        for future in futures:
            attempt = self._attempts.pop(future.key, None)
            if attempt is None:  # the other one of the two was first
                continue
            error = None if future.status == "finished" else future.exception()
            if error is None:
                self._drop(self._other(attempt))
                self._durations.add(time.monotonic() - attempt.since)
                self._policy.done(attempt.work)
            elif self._collect_failure(attempt, error) is Action.RETRY_ALONE:
                suspects.append(attempt.work)
        return suspects

    def _collect_failure(self, attempt: _Attempt, error: BaseException) -> Action:
        """Do what follows the failure, but for RETRY_ALONE; what it is."""
        n_attempts, crashed = min(attempt.number, 2), isinstance(error, KilledWorker)
        action = after_failure(error, n_attempts, crashed=crashed, was_alone=attempt.number == ALONE)
        if self._other(attempt) is not None and action is not Action.STOP_RUN:
            return Action.RETRY  # by the other one of the two, which is under way
        if action is Action.RETRY:
            self.launch([attempt.work], RETRY, self._workers_but_for(error))
        elif action is Action.MARK_FAILED and crashed:
            self._policy.mark_failed(attempt.work, error, n_attempts, KILLED)
        elif action is not Action.RETRY_ALONE:
            self._policy.failed(attempt.work, error, n_attempts)
        return action

    def _workers_but_for(self, error: BaseException) -> list[str]:
        """The workers that did not fail with `error`."""
        failed_on = getattr(error, FAILED_ON, "")
        return [worker for worker in self._client.processing() if worker != failed_on]

    def _other(self, attempt: _Attempt) -> _Attempt | None:
        """The other attempt at the same work, where there is one."""
        if attempt.work not in self._backed_up:
            return None
        return next((other for other in self._attempts.values() if other.work == attempt.work), None)

    def _drop(self, attempt: _Attempt | None) -> None:
        if attempt is not None:
            del self._attempts[attempt.future.key]
            self._client.cancel([attempt.future])

    def cancel(self) -> None:
        """Take back what has not started, and forget the rest."""
        self._client.cancel([attempt.future for attempt in self._attempts.values()])


def _drain(flight: _Flight, inbox: Inbox, grace_s: float) -> None:
    """Let blocks in flight finish for a while, then take them back."""
    deadline = time.monotonic() + grace_s
    while len(flight) and (left_s := deadline - time.monotonic()) > 0:
        try:
            message = inbox.get(timeout=left_s)
        except Empty:
            break
        if isinstance(message, Future):
            flight.collect([message])
    flight.cancel()


def _all_waiting(inbox: Inbox, timeout_s: float | None) -> tuple[list[Done], signal.Signals | None]:
    """What has arrived, at least one message: until then, or for `timeout_s`, the driver sleeps."""
    try:
        messages = [inbox.get(timeout=timeout_s)]
    except Empty:
        return [], None
    while not inbox.empty():
        messages.append(inbox.get())
    received = [message for message in messages if isinstance(message, signal.Signals)]
    return [m for m in messages if isinstance(m, Future)], received[0] if received else None
