"""Reading, computing and writing overlap in the threads of one process, without a scheduler.

    launch --> read --> compute --> store --> write_receipt --> Finished
               n        n           n         32                threads
               '--- at most 3 n blocks ---'   then only a receipt is held

n is the number of workers. Receipts have more threads than there are blocks: those that wait are made durable
together.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event as Flag
from typing import Any, NamedTuple

from vemdiffuse_pipe.errors import VemdiffuseError
from vemdiffuse_pipe.plan.estimate import BLOCKS_IN_FLIGHT
from vemdiffuse_pipe.records.events import Event, Listener
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.running import stages
from vemdiffuse_pipe.running.session import Inbox
from vemdiffuse_pipe.running.stages import WorkerContext

RECEIPT_THREADS = 32  # with a sync of 2 ms: 500 blocks/s with 4, 900 with 8, above 1,600 with 32
MAX_IN_FLIGHT = 64  # with stored ones, which are only receipts


class CancelledError(VemdiffuseError):
    """The block is not needed any more: the run is over, or another process has done it."""


class Finished(NamedTuple):
    """A piece of work that is done, failed, or was cancelled."""

    work: Work
    error: BaseException | None
    """None where it is done; CancelledError where it was cancelled."""
    seconds: float
    """Since its launch."""


class _Stored(NamedTuple):
    work: Work


class Pipeline:
    """Does the stages of what is launched. Its methods are for one thread, which receives what finished."""

    def __init__(
        self,
        context: WorkerContext,
        inbox: Inbox,
        is_missing: Callable[[Work], bool],
        *,
        n_workers: int = 1,
        is_over: Flag | None = None,
    ) -> None:
        """`inbox`: where what finished arrives, and signals. `is_over`: set where nothing may go on."""
        self._is_over, self._is_draining = is_over or Flag(), Flag()
        self._context = context
        self._inbox = inbox
        self._is_missing = is_missing
        self._n_workers = n_workers
        self._launched: dict[Work, float] = {}
        self._in_memory: set[Work] = set()
        n_threads = (n_workers, n_workers, n_workers, RECEIPT_THREADS)
        self._pools = [ThreadPoolExecutor(n) for n in n_threads]
        self._steps: list[Callable[[Work, Any], Any]] = [
            self._read,
            self._compute,
            self._store,
            self._write_receipt,
        ]

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop what is in flight as soon as possible; what is stored still gets its receipt."""
        self.drain()
        self._is_over.set()
        for pool in self._pools:
            pool.shutdown(cancel_futures=pool is not self._pools[-1])

    @property
    def n_in_flight(self) -> int:
        """Pieces that were launched and have not finished."""
        return len(self._launched)

    @property
    def has_room(self) -> bool:
        """True where one more may be launched."""
        max_in_memory = BLOCKS_IN_FLIGHT * self._n_workers
        return len(self._in_memory) < max_in_memory and len(self._launched) < max(
            MAX_IN_FLIGHT, max_in_memory
        )

    def launch(self, work: Work) -> None:
        """Start a piece of work."""
        self._launched[work] = time.monotonic()
        self._in_memory.add(work)
        self._pools[0].submit(self._do, 0, work, None)

    def next_message(self, timeout_s: float | None = None) -> Finished | signal.Signals | None:
        """What happened next: a piece finished, a signal came, or None: there is room. Raises queue.Empty."""
        message = self._inbox.get(timeout=timeout_s)
        if isinstance(message, signal.Signals):
            return message
        assert isinstance(message, Finished | _Stored)
        self._in_memory.discard(message.work)
        if isinstance(message, _Stored):
            return None
        del self._launched[message.work]
        return message

    def drain(self) -> None:
        """Cancel what is not being computed yet."""
        self._is_draining.set()

    def _do(self, step: int, work: Work, value: object) -> None:
        """One step in a thread of its pool, and on to the next pool."""
        try:
            value = self._steps[step](work, value)
        except BaseException as error:  # reported where the runner decides
            self._inbox.put(Finished(work, error, time.monotonic() - self._launched[work]))
            return
        if step + 1 < len(self._steps):
            self._pools[step + 1].submit(self._do, step + 1, work, value)
        else:
            self._inbox.put(Finished(work, None, time.monotonic() - self._launched[work]))

    def _read(self, work: Work, _: object) -> stages.LoadedBlock:
        self._check_is_wanted(work)
        return stages.read(self._context, work)

    def _compute(self, work: Work, block: stages.LoadedBlock) -> stages.ComputedBlock:
        self._check_is_wanted(work)
        return stages.compute(self._context, block)

    def _store(self, work: Work, block: stages.ComputedBlock) -> stages.StoredBlock:
        if self._is_over.is_set():
            raise CancelledError("the run is over")
        stored = stages.store(self._context, block)
        self._inbox.put(_Stored(work))
        return stored

    def _write_receipt(self, work: Work, block: stages.StoredBlock) -> None:
        stages.write_receipt(self._context, block)

    def _check_is_wanted(self, work: Work) -> None:
        if self._is_draining.is_set() or not self._is_missing(work):
            raise CancelledError("the run drains, or another process has done the block")


def until(is_over: Flag, emit: Listener) -> Listener:
    """Passes events on; after the end it raises CancelledError, which ends a long computation between
    planes.
    """

    def emit_or_cancel(event: Event) -> None:
        if is_over.is_set():
            raise CancelledError("the run is over")
        emit(event)

    return emit_or_cancel
