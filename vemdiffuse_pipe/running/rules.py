"""When a block is retried, copied to a second worker or marked failed, and when a run stops: pure functions.

The rules are the same for every runner:

    a transient error      the stage is repeated (RetryPolicy), then the block has failed once
    a block failed once    retried once more: on another worker where there is one
    a block failed twice   marked failed; the run goes on
    failures in a row      the machine or the store is faulty: the run stops, no block is marked failed
    no room, wrong input   the run stops at once: no other block could be written either
    a crashed process      its blocks are retried one by one, alone, and marked failed after two more crashes
    a straggler            near the end of the run, after three times the median
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from statistics import median

from vemdiffuse_pipe.errors import InputError, StorageFullError
from vemdiffuse_pipe.storage.retry import RetriesExhaustedError, reason_of

MAX_ATTEMPTS = 2  # at a block, by different workers where there are several
MAX_CRASHES_ALONE = 2  # of processes that had nothing but the block under way, after a first crash
MAX_FAILED_IN_A_ROW = 3  # blocks, before the machine is taken to be faulty
MAX_EXHAUSTED_IN_A_ROW = 16  # blocks whose transient error did not pass, before the store is taken to be down

STRAGGLER_FACTOR = 3.0  # times the median
MIN_TIMED_BLOCKS = 3  # before any block is a straggler
MIN_STRAGGLER_S = 1.0  # shorter blocks are not worth doing twice


class Action(Enum):
    """What is done about a block that failed."""

    STOP_RUN = "raise the error: no block could be written"
    RETRY = "retry, on another worker where there is one"
    RETRY_ALONE = "retry with nothing else under way: whoever crashes then crashed of this block"
    MARK_FAILED = "mark failed"


def after_failure(
    error: BaseException, attempt: int, *, crashed: bool = False, was_alone: bool = False
) -> Action:
    """What follows the `attempt`-th failure of a block, from 1, with `error`.

    `crashed`: its worker is gone; `was_alone`: with this block, and no other.
    """
    if isinstance(error, StorageFullError | InputError):
        return Action.STOP_RUN
    if crashed:
        return Action.MARK_FAILED if was_alone else Action.RETRY_ALONE
    return Action.RETRY if attempt < MAX_ATTEMPTS else Action.MARK_FAILED


def is_crash_culprit(n_crashes_alone: int) -> bool:
    """True where so many processes crashed alone with a block that the block is marked failed."""
    return n_crashes_alone >= MAX_CRASHES_ALONE


def stop_reason(errors: Sequence[BaseException]) -> str:
    """Why a run stops after these `errors`, of blocks that failed with no success between them; '' to go on.

    A store that is down, or a broken GPU, is no reason to mark a million blocks failed, one by one.
    """
    exhausted = [error for error in errors if isinstance(error, RetriesExhaustedError)]
    failed = [error for error in errors if not isinstance(error, RetriesExhaustedError)]
    if len(failed) >= MAX_FAILED_IN_A_ROW:
        return (
            f"{len(failed)} blocks in a row failed here: assuming a faulty host, no block is marked failed "
            f"({reason_of(failed[-1])})"
        )
    if len(exhausted) >= MAX_EXHAUSTED_IN_A_ROW:
        return f"{len(exhausted)} blocks in a row failed after all retries ({reason_of(exhausted[-1])})"
    return ""


def straggler_after_s(durations_s: Sequence[float]) -> float:
    """Seconds after which a block is a straggler: three times the median; infinite while too few are
    timed.
    """
    if len(durations_s) < MIN_TIMED_BLOCKS:
        return math.inf
    return max(MIN_STRAGGLER_S, STRAGGLER_FACTOR * median(durations_s))
