"""Signals as messages: a run that is asked to end comes to its end by itself.

SIGINT              somebody does not want to wait              the run stops
SIGTERM, SIGUSR1    the time is over, the machine is needed     it drains: no failure

Between the start of a process and its run are seconds of imports and of looking at the source: what drains a
run, ends the process there in order.
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


class MakeWay(BaseException):
    """A signal that drains came when nothing was begun yet. No failure: nothing must keep it from the top."""


_EARLY: list[signal.Signals] = []


@contextmanager
def heard_early() -> Iterator[None]:
    """Until a run hears them itself, DRAINING signals raise MakeWay. Does nothing outside the main thread."""
    if current_thread() is not main_thread():
        yield
        return
    _EARLY.clear()
    before = {one: signal.signal(one, _make_way) for one in DRAINING}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler or signal.SIG_DFL)


def came_early() -> signal.Signals | None:
    """The signal that came before there was a run, if one did; it is told once."""
    return _EARLY.pop() if _EARLY else None


def _make_way(number: int, _: object) -> None:
    for one in DRAINING:
        signal.signal(one, signal.SIG_DFL)
    _EARLY.append(signal.Signals(number))
    raise MakeWay


class Heard:
    """Which signal came first, if any did."""

    def __init__(self) -> None:
        self.first: signal.Signals | None = None

    @property
    def asks_to_drain(self) -> bool:
        """True where the run is to make way, and go on another time."""
        return self.first in DRAINING

    @property
    def interrupts(self) -> bool:
        """True where somebody does not want to wait."""
        return self.first is signal.SIGINT


@contextmanager
def received(put: Callable[[signal.Signals], None]) -> Iterator[Heard]:
    """While it lasts, the first of the signals above is `put`; a second one ends the process at once.

    `put` is called inside a signal handler: SimpleQueue.put may be. Does nothing outside the main thread,
    which alone may say what signals do.
    """
    heard = Heard()
    if current_thread() is not main_thread():
        yield heard
        return

    def receive(number: int, _: object) -> None:
        for one in before:
            signal.signal(one, signal.SIG_DFL)
        heard.first = signal.Signals(number)
        put(heard.first)

    before = {one: signal.signal(one, receive) for one in GRACE_S}
    if early := came_early():  # raised where Python passes over errors, as when an object is taken down
        receive(early, None)
    try:
        yield heard
    finally:
        for one, handler in before.items():
            is_over = handler is _make_way  # the run has begun and ended, so there is nothing to drain
            signal.signal(one, signal.SIG_DFL if is_over else handler or signal.SIG_DFL)


@contextmanager
def kept_from_children() -> Iterator[None]:
    """Processes that are begun while it lasts never see SIGINT or SIGUSR1; this one sees them later.

    A terminal sends the one to the whole group, a scheduler the other to every process of a job, and workers
    are the driver's to end. Threads that are begun now hand this on: to the processes that will replace lost
    workers. Python's tracker of resources, a process that is begun with the first of them, would take the
    mask off again, so it is begun before.
    """
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
