"""How a worker process comes to its end: what it has begun it finishes, what it has not goes to others.

    time left < 95th percentile of its block times     |
    SIGTERM, SIGUSR1                                   |-->  reads are handed back; blocks in flight end;
                                                             then it retires, and the scheduler forgets it

A process of a batch job ends with its job: the job is over earlier than it must be, and another takes its
place. A process on this machine is begun again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Hashable, Mapping
from threading import Lock, current_thread, main_thread
from types import FrameType
from typing import Any

from distributed import Reschedule, Worker

from vemdiffuse_pipe.cluster.walltime import BlockTimes, Deadline, deadline_of

JOB_ENDS = "VEMDIFFUSE_JOB_ENDS"  # seconds since 1970: what our job scripts say
HANDED_BACK_S = 0.5  # a read that is handed back may come again, until others have room
HEARD_S = 3.0  # until the driver has heard of what is done: dask does again what is lost before
RETIRING_S = 10.0  # for that, to tell the scheduler, and to close
REASON = "its time is over"
GRACE_S = {signal.SIGTERM: 20.0, signal.SIGUSR1: 110.0}  # Slurm kills 30 s after SIGTERM


def job_deadline(environ: Mapping[str, str] = os.environ) -> Deadline:
    """When blocks must have ended here: RETIRING_S before the batch job does; never where nobody says."""
    ends = environ.get(JOB_ENDS, "")
    if ends.isascii() and ends.isdigit() and len(ends) <= 12:
        return Deadline(int(ends) - time.time() - RETIRING_S)
    return Deadline(deadline_of(None, environ).left_s() - RETIRING_S)


class GracefulShutdown:
    """Of one worker process. Knows what has begun here and not ended, and when no more may begin.

    `restart`: its nanny begins the process again.
    """

    def __init__(self, worker: Worker, deadline: Deadline, *, restart: bool) -> None:
        self._worker = worker
        self._deadline = deadline
        self._restart = restart
        self._times = BlockTimes()
        self._begun: dict[Hashable, float] = {}
        self._lock = Lock()
        self._is_leaving = False
        self._handlers: dict[signal.Signals, Any] = {}

    def begin(self, block: Hashable) -> None:
        """A block is taken up. Raises Reschedule where another worker should do it."""
        with self._lock:
            if not self._is_leaving and self._deadline.leaves_time_for(self._times):
                self._begun[block] = time.monotonic()
                return
        self.leave(self._deadline.left_s())
        time.sleep(HANDED_BACK_S)
        raise Reschedule

    def end(self, block: Hashable, *, is_done: bool) -> None:
        """It is written, or it failed."""
        with self._lock:
            began = self._begun.pop(block, None)
            if began is not None and is_done:
                self._times.add(time.monotonic() - began)

    def leave(self, within_s: float) -> None:
        """Take up nothing more, and be gone when all that has begun is done, or after `within_s`."""
        with self._lock:
            is_first, self._is_leaving = not self._is_leaving, True
        if is_first:
            self._worker.loop.add_callback(self._go, within_s)

    async def _go(self, within_s: float) -> None:
        ends = time.monotonic() + within_s
        while self._begun and time.monotonic() < ends:
            await asyncio.sleep(0.1)
        heard = time.monotonic() + HEARD_S
        while self._worker.data and time.monotonic() < heard:
            await asyncio.sleep(0.1)
        if self._worker.nanny and not self._restart:  # before the worker's last connection is gone
            address = self._worker.nanny  # typed as the nanny itself
            async with self._worker.rpc(address) as nanny:  # type: ignore[arg-type]
                await nanny.close_gracefully(reason=REASON)
        await self._worker.close_gracefully(restart=self._restart, reason=REASON)

    def listen(self) -> None:
        """Leave at SIGTERM and SIGUSR1. Only where this is the main thread, which alone hears them."""
        if current_thread() is main_thread():
            self._handlers = {one: signal.signal(one, self._receive) for one in GRACE_S}

    def _receive(self, number: int, _: FrameType | None) -> None:
        within_s = min(GRACE_S[signal.Signals(number)], self._deadline.left_s())
        self._worker.loop.add_callback_from_signal(self.leave, within_s)

    def close(self) -> None:
        """Signals mean what they meant."""
        if current_thread() is main_thread():
            for one, handler in self._handlers.items():
                signal.signal(one, handler or signal.SIG_DFL)
        self._handlers = {}
