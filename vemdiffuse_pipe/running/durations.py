"""How long blocks take."""

from __future__ import annotations

from collections import deque

from vemdiffuse_pipe.running.rules import straggler_after_s

N_KEPT = 101


class BlockDurations:
    """Durations of the last hundred blocks, in seconds from their launch to their receipt."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=N_KEPT)

    def add(self, seconds: float) -> None:
        """Count the duration of a block that is done."""
        self._seconds.append(seconds)

    def straggler_after_s(self) -> float:
        """Seconds after which a block is a straggler; infinite while too few are timed."""
        return straggler_after_s(self._seconds)
