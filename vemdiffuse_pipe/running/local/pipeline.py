"""A worker without a scheduler: reading, rendering and writing overlap in the threads of one process.

    launch --> read --> render --> store --> note --> Ended
               1        1          1        32        threads
               '- at most BLOCKS_IN_FLIGHT -'  then nothing is held but a receipt

Receipts have more threads than there are blocks: those that wait are made durable together.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue
from threading import Event as Flag
from typing import Any, NamedTuple, TypeAlias

from vemdiffuse_pipe.plan.estimate import BLOCKS_IN_FLIGHT
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.running import stages
from vemdiffuse_pipe.running.outcomes import EndedError, until
from vemdiffuse_pipe.running.stages import WorkerContext

NOTE_THREADS = 32  # with a sync of 2 ms: 500 blocks/s with 4, 900 with 8, above 1,600 with 32
MAX_IN_FLIGHT = 64  # stored ones included, of which there are only receipts


class Ended(NamedTuple):
    """A piece of work that is done, or failed, or was given back: EndedError. `seconds`: since its launch."""

    work: Work
    error: BaseException | None
    seconds: float


class _IsStored(NamedTuple):
    work: Work


# SimpleQueue.put is the one call that is safe inside a signal handler.
Inbox: TypeAlias = "SimpleQueue[Ended | _IsStored | signal.Signals]"


class Pipeline:
    """Does the stages of what is launched. Its methods are for one thread, which hears how pieces ended."""

    def __init__(self, place: WorkerContext, inbox: Inbox, is_missing: Callable[[Work], bool]) -> None:
        self._ended, self._given_back = Flag(), Flag()
        self._place = replace(place, tell=until(self._ended, place.tell))
        self._inbox = inbox
        self._is_missing = is_missing
        self._launched: dict[Work, float] = {}
        self._held: set[Work] = set()  # those whose voxels are in memory
        self._pools = [ThreadPoolExecutor(n) for n in (1, 1, 1, NOTE_THREADS)]
        self._steps: list[Callable[[Work, Any], Any]] = [self._read, self._render, self._store, self._note]

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        """End what is in flight as soon as it can be; what is stored still has its receipt written."""
        self.give_back()
        self._ended.set()
        for pool in self._pools:
            pool.shutdown(cancel_futures=pool is not self._pools[-1])

    @property
    def n_in_flight(self) -> int:
        """Pieces that were launched and not heard of since."""
        return len(self._launched)

    @property
    def has_room(self) -> bool:
        """True where one more may be launched."""
        return len(self._held) < BLOCKS_IN_FLIGHT and len(self._launched) < MAX_IN_FLIGHT

    def launch(self, work: Work) -> None:
        """Begin a piece of work."""
        self._launched[work] = time.monotonic()
        self._held.add(work)
        self._pools[0].submit(self._do, 0, work, None)

    def arrival(self, timeout_s: float | None = None) -> Ended | signal.Signals | None:
        """What happened next: a piece ended, a signal came, or None: there is room. Raises queue.Empty."""
        arrival = self._inbox.get(timeout=timeout_s)
        if isinstance(arrival, signal.Signals):
            return arrival
        self._held.discard(arrival.work)
        if isinstance(arrival, _IsStored):
            return None
        del self._launched[arrival.work]
        return arrival

    def give_back(self) -> None:
        """Give up what has not begun to be rendered."""
        self._given_back.set()

    def _do(self, step: int, work: Work, value: object) -> None:
        """One step in a thread of its pool; then it is the next pool's."""
        try:
            value = self._steps[step](work, value)
        except BaseException as error:  # it is reported where the driver decides
            self._inbox.put(Ended(work, error, time.monotonic() - self._launched[work]))
            return
        if step + 1 < len(self._steps):
            self._pools[step + 1].submit(self._do, step + 1, work, value)
        else:
            self._inbox.put(Ended(work, None, time.monotonic() - self._launched[work]))

    def _read(self, work: Work, _: object) -> stages.Sections:
        self._check_is_wanted(work)
        return stages.read(self._place, work.block_index, work.output_box)

    def _render(self, work: Work, sections: stages.Sections) -> stages.Rendered:
        self._check_is_wanted(work)
        return stages.render(self._place, sections)

    def _store(self, work: Work, rendered: stages.Rendered) -> stages.Stored:
        if self._ended.is_set():
            raise EndedError("the run has ended")
        stored = stages.store(self._place, rendered)
        self._inbox.put(_IsStored(work))
        return stored

    def _note(self, work: Work, stored: stages.Stored) -> None:
        stages.note(self._place, stored)

    def _check_is_wanted(self, work: Work) -> None:
        if self._given_back.is_set() or not self._is_missing(work):
            raise EndedError("it was given back, or somebody else has done it")
