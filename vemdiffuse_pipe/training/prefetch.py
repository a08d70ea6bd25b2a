"""Batches made by a thread while the network works on those before."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")
DEPTH = 3


class Prefetched(Generic[T]):
    """make(n) for every n of `numbers`, in order, made by one thread, at most 3 ahead; use it in a `with`.

    `waited_s`: how long whoever asked had to wait.
    """

    def __init__(self, make: Callable[[int], T], numbers: range, clock: Callable[[], float] = time.monotonic):
        self.waited_s = 0.0
        self._make = make
        self._numbers = numbers
        self._clock = clock
        self._maker = ThreadPoolExecutor(1, "batches")

    def __enter__(self) -> Prefetched[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._maker.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[T]:
        waiting: deque[Future[T]] = deque()
        for number in self._numbers:
            waiting.append(self._maker.submit(self._make, number))
            if len(waiting) > DEPTH:
                yield self._awaited(waiting.popleft())
        while waiting:
            yield self._awaited(waiting.popleft())

    def _awaited(self, made: Future[T]) -> T:
        start = self._clock()
        result = made.result()
        self.waited_s += self._clock() - start
        return result
