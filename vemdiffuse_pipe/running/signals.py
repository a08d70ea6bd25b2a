"""Signals as messages: a run that is asked to end comes to its end by itself.

SIGINT              somebody does not want to wait              the run stops
SIGTERM, SIGUSR1    the time is over, the machine is needed     it drains: no failure
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


class Heard:
    """Which signal came first, if any did."""

    def __init__(self) -> None:
        self.first: signal.Signals | None = None

    @property
    def asks_to_drain(self) -> bool:
        """True where the run is to make way, and go on another time."""
        return self.first in DRAINING


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
    try:
        yield heard
    finally:
        for one, handler in before.items():
            signal.signal(one, handler or signal.SIG_DFL)


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
