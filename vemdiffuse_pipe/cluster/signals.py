"""Signals as messages: a run that receives one stops in an orderly way.

SIGINT              interrupted from the keyboard                the run stops
SIGTERM, SIGUSR1    the time is over, the machine is needed      the run drains: no failure

Between the start of a process and its run are seconds of imports and of reading metadata: there a signal that
drains a run ends the process in an orderly way.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from threading import current_thread, main_thread

# Seconds in which blocks in flight may still end. Slurm kills 30 s after SIGTERM; SIGUSR1 is sent as early as
# the user says, and two minutes are usual.
GRACE_S = {signal.SIGINT: 5.0, signal.SIGTERM: 20.0, signal.SIGUSR1: 120.0}

DRAINING = (signal.SIGTERM, signal.SIGUSR1)


class DrainRequest(BaseException):
    """A signal that drains came before a run was started. No failure; no handler may swallow it."""


_EARLY: list[signal.Signals] = []


@contextmanager
def received_early() -> Iterator[None]:
    """Until a run receives them itself, DRAINING signals raise DrainRequest.

    Does nothing outside the main thread.
    """
    if current_thread() is not main_thread():
        yield
        return
    _EARLY.clear()
    before = {number: signal.signal(number, _request_drain) for number in DRAINING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def came_early() -> signal.Signals | None:
    """The signal that came before there was a run, if one did; returned once."""
    return _EARLY.pop() if _EARLY else None


def _request_drain(number: int, _: object) -> None:
    for draining in DRAINING:
        signal.signal(draining, signal.SIG_DFL)
    _EARLY.append(signal.Signals(number))
    raise DrainRequest


class Received:
    """Which signal came first, if any did."""

    def __init__(self) -> None:
        self.first: signal.Signals | None = None

    @property
    def asks_to_drain(self) -> bool:
        """True where the run is to drain, and be resumed later."""
        return self.first in DRAINING

    @property
    def interrupts(self) -> bool:
        """True where the run was interrupted from the keyboard."""
        return self.first is signal.SIGINT


@contextmanager
def received(put: Callable[[signal.Signals], None]) -> Iterator[Received]:
    """While it lasts, the first of the signals above is `put`; a second one ends the process at once.

    `put` is called inside a signal handler: SimpleQueue.put may be. Does nothing outside the main thread,
    which alone may say what signals do.
    """
    first = Received()
    if current_thread() is not main_thread():
        yield first
        return

    def receive(number: int, _: object) -> None:
        for replaced in before:
            signal.signal(replaced, signal.SIG_DFL)
        first.first = signal.Signals(number)
        put(first.first)

    before = {number: signal.signal(number, receive) for number in GRACE_S}
    if early := came_early():  # raised where Python swallows errors, as in a destructor
        receive(early, None)
    try:
        yield first
    finally:
        for number, handler in before.items():
            is_over = handler is _request_drain  # the run is over, so there is nothing to drain
            signal.signal(number, signal.SIG_DFL if is_over else handler or signal.SIG_DFL)


@contextmanager
def blocked_in_children() -> Iterator[None]:
    """Processes that are started while it lasts never receive SIGINT or SIGUSR1; this one receives them
    later.

    A terminal sends the one to the whole group, a scheduler the other to every process of a job, and workers
    are the driver's to end. Threads that are started now pass this on to the processes that will replace lost
    workers. Python's resource tracker, a process that is started with the first of them, would take the mask
    off again, so it is started before.
    """
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
