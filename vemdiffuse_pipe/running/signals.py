"""SIGINT and SIGTERM as messages: a run that is asked to end comes to its end by itself."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from threading import current_thread, main_thread


@contextmanager
def received(put: Callable[[signal.Signals], None]) -> Iterator[None]:
    """While it lasts, the first SIGINT or SIGTERM is `put`; a second one ends the process at once.

    `put` is called inside a signal handler: SimpleQueue.put may be. Does nothing outside the main thread,
    which alone may say what signals do.
    """
    if current_thread() is not main_thread():
        yield
        return

    def receive(number: int, _: object) -> None:
        for one in before:
            signal.signal(one, signal.SIG_DFL)
        put(signal.Signals(number))

    before = {one: signal.signal(one, receive) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler or signal.SIG_DFL)


@contextmanager
def kept_from_children() -> Iterator[None]:
    """Processes that are begun while it lasts never see SIGINT; this one sees it a little later.

    A terminal sends it to the whole group, and workers are the driver's to end. Threads that are begun now
    hand this on: to the processes that will replace lost workers. Python's tracker of resources, a process
    that is begun with the first of them, would take the mask off again, so it is begun before.
    """
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
