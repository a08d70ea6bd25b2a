"""Failures of one process: reported once it is clear that the block is at fault, and not the machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from vemdiffuse_pipe.errors import DataError
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.running.rules import Action, after_failure, stop_reason
from vemdiffuse_pipe.storage.retry import reason_of


class Reporter(Protocol):
    """Receives what became of each piece of work."""

    def done(self, work: Work) -> None:
        """The work is stored and has its receipt."""
        ...

    def mark_failed(self, work: Work, reason: str, n_attempts: int) -> None:
        """The work is left out until `retry`."""
        ...


class _Failure(NamedTuple):
    work: Work
    error: BaseException
    reason: str
    n_attempts: int


class FailurePolicy:
    """Reports how each piece ended, and says when to stop.

    A failure waits until another block is done: that shows that this machine works. Data that cannot be read
    are the block's fault at once.
    """

    def __init__(self, reporter: Reporter, report: Callable[[Work, str, int], None] | None = None) -> None:
        """`report`: receives failures in place of `reporter.mark_failed`."""
        self._reporter = reporter
        self._report = report or reporter.mark_failed
        self._in_a_row: list[_Failure] = []
        self._has_stopped = False

    def done(self, work: Work) -> None:
        """The work is stored and has its receipt; so failures before it were the blocks'."""
        self._reporter.done(work)
        self.confirm()

    def failed(self, work: Work, error: BaseException, n_attempts: int = 1, reason: str = "") -> None:
        """The work failed. Raises StorageFullError and InputError, after which no block could be written."""
        failure = _failure(work, error, n_attempts, reason)
        if isinstance(error, DataError):
            self._report(work, failure.reason, failure.n_attempts)
        elif not self._has_stopped:
            self._in_a_row.append(failure)

    def mark_failed(self, work: Work, error: BaseException, n_attempts: int = 1, reason: str = "") -> None:
        """The block is at fault for certain. Raises as `failed`."""
        failure = _failure(work, error, n_attempts, reason)
        self._reporter.mark_failed(work, failure.reason, failure.n_attempts)

    def confirm(self) -> None:
        """This machine works: report the failures that waited."""
        failures, self._in_a_row = self._in_a_row, []
        for failure in failures:
            self._report(failure.work, failure.reason, failure.n_attempts)

    def stop_reason(self) -> str:
        """Why the run stops, in one sentence, or ''. What failed in that row is forgotten."""
        reason = stop_reason([failure.error for failure in self._in_a_row])
        if reason:
            self._in_a_row, self._has_stopped = [], True
        return reason


def _failure(work: Work, error: BaseException, n_attempts: int, reason: str) -> _Failure:
    """Raises StorageFullError and InputError."""
    if after_failure(error, n_attempts) is Action.STOP_RUN:
        raise error
    return _Failure(work, error, reason or reason_of(error), getattr(error, "n_attempts", n_attempts))
