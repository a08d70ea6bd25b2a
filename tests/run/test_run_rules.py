"""The rules of retries, stragglers and stopping, one by one: the same for every runner."""

from __future__ import annotations

import math

import pytest

from vemdiffuse_pipe.errors import CorruptDataError, InputError, StorageFullError, VemdiffuseError
from vemdiffuse_pipe.running.rules import (
    MAX_CRASHES_ALONE,
    MAX_EXHAUSTED_IN_A_ROW,
    MAX_FAILED_IN_A_ROW,
    Action,
    after_failure,
    is_crash_culprit,
    stop_reason,
    straggler_after_s,
)
from vemdiffuse_pipe.storage.retry import RetriesExhaustedError

EXHAUSTED = RetriesExhaustedError("TransientError: 503", 4)


@pytest.mark.parametrize("error", [CorruptDataError("x"), EXHAUSTED, ZeroDivisionError()])
def test_a_block_that_failed_once_is_retried_and_after_the_second_failure_marked(error: Exception) -> None:
    assert after_failure(error, 1) is Action.RETRY
    assert after_failure(error, 2) is Action.MARK_FAILED


@pytest.mark.parametrize("error", [StorageFullError("full"), InputError("read-only")])
def test_what_would_fail_for_every_block_stops_the_run_at_once(error: Exception) -> None:
    assert after_failure(error, 1) is Action.STOP_RUN
    assert after_failure(error, 2, crashed=True) is Action.STOP_RUN


def test_a_block_whose_worker_crashed_is_retried_alone_before_it_is_marked_failed() -> None:
    assert after_failure(RuntimeError(), 1, crashed=True) is Action.RETRY_ALONE
    assert after_failure(RuntimeError(), 2, crashed=True, was_alone=True) is Action.MARK_FAILED


def test_one_crash_alone_does_not_make_a_block_the_culprit() -> None:
    assert [is_crash_culprit(n) for n in range(MAX_CRASHES_ALONE + 1)] == [False, False, True]


def test_a_run_stops_after_three_failures_in_a_row_or_sixteen_exhausted_ones() -> None:
    failed, exhausted = [VemdiffuseError("GPU")] * MAX_FAILED_IN_A_ROW, [EXHAUSTED] * MAX_EXHAUSTED_IN_A_ROW
    assert stop_reason(failed[1:]) == stop_reason(exhausted[1:]) == stop_reason([]) == ""
    assert stop_reason(failed).startswith("3 blocks in a row failed here: assuming a faulty host")
    assert stop_reason(exhausted) == "16 blocks in a row failed after all retries (TransientError: 503)"


def test_a_straggler_takes_three_times_the_median_and_never_less_than_a_second() -> None:
    assert straggler_after_s([10, 2, 300]) == 30
    assert straggler_after_s([0.01, 0.01]) == math.inf
    assert straggler_after_s([0.01] * 3) == 1
