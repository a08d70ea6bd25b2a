"""How long blocks take, and when one takes too long."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

TIMES_THE_MEDIAN = 3.0
MIN_TIMED = 3  # blocks that were timed, before any is late
REMEMBERED = 101
MIN_STRAGGLER_S = 1.0  # what takes less is not worth doing twice


class BlockDurations:
    """The last hundred times that a block took, in seconds, from being handed over to being done."""

    def __init__(self) -> None:
        self._took_s: deque[float] = deque(maxlen=REMEMBERED)

    def add(self, took_s: float) -> None:
        """A block is done."""
        self._took_s.append(took_s)

    def late_after_s(self) -> float:
        """Seconds after which a block is late: three times the median; infinite while too few are known."""
        if len(self._took_s) < MIN_TIMED:
            return math.inf
        return max(MIN_STRAGGLER_S, TIMES_THE_MEDIAN * median(self._took_s))
