"""Near the end: what is late is done by another worker too, and one death proves nothing against a block."""

from __future__ import annotations

from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest
from killed_workers import CrashingJob, OneBrokenWorkerJob, OneSlowWorkerJob
from small_runs import SHAPE, interpolated, small_run, stored

from vemdiffuse_pipe.cluster.engines import connect
from vemdiffuse_pipe.config import RunFile
from vemdiffuse_pipe.output.run_output import create_run_output
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.records.shards import ShardSet, Work, missing_work
from vemdiffuse_pipe.running.dask.driver import Target, drive
from vemdiffuse_pipe.running.dask.worker import JobPlugin
from vemdiffuse_pipe.running.durations import BlockDurations
from vemdiffuse_pipe.running.reconstruct import prepare
from vemdiffuse_pipe.running.render_job import RenderJob
from vemdiffuse_pipe.storage.retry import RetryPolicy
from vemdiffuse_pipe.testing import position_coded


class Heard:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.done_blocks: list[int] = []
        self.copies: list[tuple[int, str]] = []

    def done(self, work: Work) -> None:
        self.done_blocks.append(work.block_index)

    def mark_failed(self, work: Work, reason: str, n_attempts: int) -> None:
        raise AssertionError(reason)

    def copied(self, work: Work, worker: str) -> None:
        self.copies.append((work.block_index, worker))


def begun(folder: Path, block: tuple[int, int, int]) -> tuple[RunFile, Plan]:
    """A run on two processes, its output there."""
    run_file = small_run(folder, run={"workers": 2, "engine": "local", "block_shape": block})
    _, plan = prepare(run_file)
    create_run_output(plan)
    return run_file, plan


def driven(run_file: RunFile, job: RenderJob) -> Heard:
    """What was heard of the whole run."""
    heard, work = Heard(), missing_work(job.blocks, ShardSet(job.shards))
    with connect(run_file.run) as client:
        client.register_plugin(JobPlugin("k", job, run_file.run, None, RetryPolicy()))
        assert drive(Target(client, "k"), work, 6, heard, SimpleQueue(), heard.copied) == ""
    return heard


@pytest.mark.slow
def test_what_a_slow_worker_holds_at_the_end_is_done_by_the_other_one(tmp_path: Path) -> None:
    run_file, plan = begun(tmp_path, (8, 16, 32))
    claim = tmp_path / "slow"
    heard = driven(run_file, OneSlowWorkerJob(plan, claim=claim, delay_s=60))
    assert sorted(heard.done_blocks) == list(range(24))
    assert heard.copies
    assert {worker for _, worker in heard.copies}.isdisjoint({claim.read_text()})
    np.testing.assert_array_equal(stored(run_file), interpolated(position_coded(SHAPE), 5))


@pytest.mark.slow
def test_a_block_whose_worker_died_once_is_done_by_the_next(tmp_path: Path) -> None:
    run_file, plan = begun(tmp_path, (8, 48, 64))
    (tmp_path / "crashes").mkdir()
    job = CrashingJob(plan, crashes=tmp_path / "crashes", deadly_block=2, n_crashes=1)
    heard = driven(run_file, job)
    assert sorted(heard.done_blocks) == [0, 1, 2, 3]
    assert len(list((tmp_path / "crashes").iterdir())) == 1
    np.testing.assert_array_equal(stored(run_file), interpolated(position_coded(SHAPE), 5))


@pytest.mark.slow
def test_what_fails_on_one_worker_is_done_by_another_and_not_marked_failed(tmp_path: Path) -> None:
    run_file, plan = begun(tmp_path, (8, 48, 64))
    driven(run_file, OneBrokenWorkerJob(plan, claim=tmp_path / "broken"))
    np.testing.assert_array_equal(stored(run_file), interpolated(position_coded(SHAPE), 5))


def test_a_block_is_a_straggler_after_three_times_the_median() -> None:
    pace = BlockDurations()
    for took_s in (10, 2, 300):
        pace.add(took_s)
    assert pace.straggler_after_s() == 30


def test_there_is_no_straggler_while_too_little_is_known_and_never_a_quick_block_at_once() -> None:
    pace = BlockDurations()
    pace.add(0.01)
    pace.add(0.01)
    assert pace.straggler_after_s() == float("inf")
    pace.add(0.01)
    assert pace.straggler_after_s() == 1
