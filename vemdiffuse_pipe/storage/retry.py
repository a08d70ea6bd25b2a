"""Trying again: only what is transient, only the stage that failed, and not for ever."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from vemdiffuse_pipe.errors import TransientError, VemdiffuseError

T = TypeVar("T")


class RetriesExhaustedError(VemdiffuseError):
    """Something transient did not pass. `reason`: what the last attempt said."""

    def __init__(self, reason: str, n_attempts: int) -> None:
        super().__init__(reason, n_attempts)  # both, so that it can be pickled
        self.reason = reason
        self.n_attempts = n_attempts

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `n_attempts`; before the n-th, a wait of up to base * 2^n seconds, but never above `most_s`."""

    n_attempts: int = 4
    base_s: float = 0.5
    most_s: float = 30.0

    def wait_s(self, attempt: int) -> float:
        """Seconds to wait after `attempt` failed: drawn, so that many workers do not come back at once."""
        return random.uniform(0.5, 1.0) * min(self.most_s, self.base_s * 2.0**attempt)  # noqa: S311


def with_retries(
    work: Callable[[], T],
    retry_policy: RetryPolicy,
    on_failure: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """`work()`, repeated while it raises TransientError. `on_failure` hears why each attempt failed.

    Raises RetriesExhaustedError after the last attempt; any other error at once.
    """
    for attempt in range(1, retry_policy.n_attempts + 1):
        try:
            return work()
        except TransientError as error:
            on_failure(reason_of(error))
            if attempt == retry_policy.n_attempts:
                raise RetriesExhaustedError(reason_of(error), attempt) from error
        sleep(retry_policy.wait_s(attempt))
    raise AssertionError("at least one attempt is made")


def reason_of(error: BaseException) -> str:
    """'MissingDataError: chunk ...': the class, and the first line of what it says."""
    if isinstance(error, RetriesExhaustedError):
        return error.reason
    sentence = " ".join(str(error).split()) or "no reason was given"
    return f"{type(error).__name__}: {sentence[:500]}"
