"""Graceful shutdown of a worker process: started blocks are finished, the others go to other workers.

    time left < 95th percentile of its block times     |
    SIGTERM, SIGUSR1                                   |-->  reads are handed back; blocks in flight finish;
                                                             then it retires from the scheduler

A process of a batch job takes its job with it, and another job replaces it. A process on this machine is
started again.
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

JOB_ENDS = "VEMDIFFUSE_JOB_ENDS"  # seconds since 1970: what our job scripts set
HAND_BACK_WAIT_S = 0.5  # a read that is handed back may return, until other workers have room
RESULTS_WAIT_S = 1.0  # until the driver knows what is done: dask repeats what is lost before
RETIRING_S = 10.0  # for that, and to retire
REASON = "its time is over"
GRACE_S = {signal.SIGTERM: 20.0, signal.SIGUSR1: 110.0}  # Slurm kills 30 s after SIGTERM


def job_deadline(environ: Mapping[str, str] = os.environ) -> Deadline:
    """When blocks must be finished: RETIRING_S before the batch job ends; never where no end is known."""
    ends = environ.get(JOB_ENDS, "")
    if ends.isascii() and ends.isdigit() and len(ends) <= 12:
        return Deadline(int(ends) - time.time() - RETIRING_S)
    return Deadline(deadline_of(None, environ).left_s() - RETIRING_S)


class GracefulShutdown:
    """Of one worker process: which blocks are under way, and when no more may start."""

    def __init__(
        self, worker: Worker, deadline: Deadline, *, restart: bool, hand_back_wait_s: float = HAND_BACK_WAIT_S
    ) -> None:
        """`restart`: the process is started again by its nanny."""
        self._hand_back_wait_s = hand_back_wait_s
        self._worker = worker
        self._deadline = deadline
        self._restart = restart
        self._times = BlockTimes()
        self._started: dict[Hashable, float] = {}
        self._lock = Lock()
        self._is_draining = False
        self._handlers: dict[signal.Signals, Any] = {}

    def start(self, block: Hashable) -> None:
        """A block starts. Raises Reschedule where another worker should do it."""
        with self._lock:
            if not self._is_draining and self._deadline.leaves_time_for(self._times):
                self._started[block] = time.monotonic()
                return
        self.drain(self._deadline.left_s())
        time.sleep(self._hand_back_wait_s)
        raise Reschedule

    def stop(self, block: Hashable, *, is_done: bool) -> None:
        """A block is written, or it failed."""
        with self._lock:
            started = self._started.pop(block, None)
            if started is not None and is_done:
                self._times.add(time.monotonic() - started)

    def drain(self, timeout_s: float) -> None:
        """Start no more blocks, and retire when those under way are finished, or after `timeout_s`."""
        with self._lock:
            is_first, self._is_draining = not self._is_draining, True
        if is_first:
            self._worker.loop.add_callback(self._retire, timeout_s)

    async def _retire(self, timeout_s: float) -> None:
        ends = time.monotonic() + timeout_s
        while self._started and time.monotonic() < ends:
            await asyncio.sleep(0.1)
        await asyncio.sleep(RESULTS_WAIT_S)
        if self._worker.nanny and not self._restart:  # before the worker's last connection is gone
            address = self._worker.nanny  # typed as the nanny itself
            async with self._worker.rpc(address) as nanny:  # type: ignore[arg-type]
                await nanny.close_gracefully(reason=REASON)
        await self._worker.close_gracefully(restart=self._restart, reason=REASON)

    def listen(self) -> None:
        """Drain at SIGTERM and SIGUSR1. Only in the main thread, which alone may handle signals."""
        if current_thread() is main_thread():
            self._handlers = {number: signal.signal(number, self._receive) for number in GRACE_S}

    def _receive(self, number: int, _: FrameType | None) -> None:
        timeout_s = min(GRACE_S[signal.Signals(number)], self._deadline.left_s())
        self._worker.loop.add_callback_from_signal(self.drain, timeout_s)

    def close(self) -> None:
        """Restore the signal handlers."""
        if current_thread() is main_thread():
            for number, handler in self._handlers.items():
                signal.signal(number, handler or signal.SIG_DFL)
        self._handlers = {}
