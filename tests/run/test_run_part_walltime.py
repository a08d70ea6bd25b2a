"""The time that a job has left, by whom it is told, and when a block is not begun any more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from small_runs import small_run

from vemdiffuse_pipe.cluster.walltime import (
    BlockTimes,
    Deadline,
    deadline_of,
    parse_walltime,
    stated_walltime_s,
    time_left_s,
)
from vemdiffuse_pipe.config import ClusterTable, with_engine
from vemdiffuse_pipe.errors import ConfigError


def left(environ: dict[str, str], answer: str = "") -> tuple[float | None, list[str]]:
    asked: list[str] = []

    def ask(command: Sequence[str]) -> str:
        asked.append(" ".join(command))
        return answer

    return time_left_s(environ, lambda: 1000.0, ask), asked


def test_outside_of_a_job_nobody_is_asked() -> None:
    assert left({}) == (None, [])


def test_the_end_that_slurm_states_is_taken() -> None:
    assert left({"SLURM_JOB_END_TIME": "1600", "SLURM_JOB_ID": "7"}) == (600.0, [])


def test_else_squeue_is_asked() -> None:
    assert left({"SLURM_JOB_ID": "7"}, "1-02:03:04\n") == (93784.0, ["squeue -h -j 7 -o %L"])


def test_a_job_of_an_array_asks_for_itself_alone() -> None:
    environ = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    assert left(environ, "0:30") == (30.0, ["squeue -h -j 7_3 -o %L"])


@pytest.mark.parametrize("answer", ["", "UNLIMITED", "NOT_SET", "INVALID", "1:2:3:4", "4:00\n5:00"])
def test_an_answer_that_is_no_time_means_that_nobody_says(answer: str) -> None:
    assert left({"SLURM_JOB_ID": "7"}, answer)[0] is None


def test_a_job_number_that_is_none_is_not_passed_on() -> None:
    assert left({"SLURM_JOB_ID": "7; rm -rf"}, "4:00") == (None, [])


@pytest.mark.parametrize(
    ("text", "seconds"), [("00:01:00", 60), ("04:00:00", 14400), ("90:00", 5400), ("2-00:00:00", 172800)]
)
def test_a_walltime_is_written_as_schedulers_do(text: str, seconds: int) -> None:
    assert parse_walltime(text) == seconds


@pytest.mark.parametrize("text", ["", "4h", "0:00", "-1:00:00", "90", "1:2:3:4"])
def test_what_is_no_walltime_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="04:00:00"):
        parse_walltime(text)


def test_the_percentile_is_that_of_the_newest_blocks() -> None:
    times = BlockTimes()
    assert times.p95 == 0
    for seconds in (*[9999] * 300, *range(1, 257)):
        times.add(seconds)
    assert times.p95 == 244  # 0.95 x 256 is 243.2


def test_a_block_is_begun_while_there_is_time_for_it() -> None:
    now = [0.0]
    deadline, times = Deadline(100.0, lambda: now[0]), BlockTimes()
    assert deadline.leaves_time_for(times)
    times.add(30.0)
    now[0] = 70.0
    assert deadline.leaves_time_for(times)
    now[0] = 70.1
    assert not deadline.leaves_time_for(times)


def test_before_there_is_a_block_all_the_time_is_used() -> None:
    now = [99.9]
    deadline = Deadline(0.1, lambda: now[0])
    assert deadline.leaves_time_for(BlockTimes())
    now[0] = 100.1
    assert not deadline.leaves_time_for(BlockTimes())


def test_what_cluster_states_is_for_batch_jobs_and_never_a_default() -> None:
    stated = ClusterTable(memory_gb=4, walltime="12:00:00")
    in_job = {"LSB_JOBID": "4711"}
    assert stated_walltime_s(stated, in_job) == 12 * 3600
    assert stated_walltime_s(stated, {}) is None
    assert stated_walltime_s(ClusterTable(memory_gb=4), in_job) is None
    assert stated_walltime_s(None, in_job) is None


def test_naming_the_engine_states_no_walltime(tmp_path: Path) -> None:
    run_file = with_engine(small_run(tmp_path, cluster={"memory_gb": 4}), "threads")
    assert run_file.cluster is not None
    assert stated_walltime_s(run_file.cluster, {"LSB_JOBID": "4711"}) is None


def test_what_the_scheduler_says_goes_before_what_was_given() -> None:
    assert deadline_of(None, {}).left_s() == float("inf")
    assert deadline_of(1e6, {}).left_s() < 1e6
    assert deadline_of(1e6, {"SLURM_JOB_END_TIME": "9999999999"}).left_s() > 1e8
