"""Any job on blocks is run as rendering is: parts, receipts, resume after a kill, workers elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from inverting import InvertJob, invert_job, inverted
from small_runs import SHAPE, write_source

from vemdiffuse_pipe.config import RunTable
from vemdiffuse_pipe.errors import ConfigError, OutputError
from vemdiffuse_pipe.records.events import BlockDone, Event
from vemdiffuse_pipe.records.folder import records_of_job
from vemdiffuse_pipe.records.parts import Part
from vemdiffuse_pipe.records.receipts import read_receipts
from vemdiffuse_pipe.running.dask.runner import DaskRunner
from vemdiffuse_pipe.running.local.runner import LocalRunner
from vemdiffuse_pipe.running.runner import run_job
from vemdiffuse_pipe.storage import parse_address
from vemdiffuse_pipe.testing import position_coded

VOLUME = position_coded(SHAPE)
N_BLOCKS = 48


@pytest.fixture
def job(tmp_path: Path) -> InvertJob:
    write_source(tmp_path, VOLUME)
    return invert_job(tmp_path)


def test_parts_of_a_job_make_the_whole_and_a_rerun_does_nothing(job: InvertJob) -> None:
    events: list[Event] = []
    first = run_job(job, LocalRunner(Part(1, 2), max_blocks=10), listener=events.append)
    assert (first.n_done, first.exit_code, job.finished) == (10, 1, [])
    assert sum(isinstance(event, BlockDone) for event in events) == 10
    second = run_job(job, LocalRunner(Part(2, 2)))
    assert (second.n_done, second.n_rendered, second.exit_code) == (N_BLOCKS, N_BLOCKS - 10, 0)
    assert job.finished == ["finished"]
    assert run_job(job, LocalRunner(n_workers=2)).n_rendered == 0
    np.testing.assert_array_equal(inverted(job), 255 - VOLUME)


def test_receipts_of_a_job_lie_in_a_folder_of_its_own_and_name_its_stages(job: InvertJob) -> None:
    run_job(job, LocalRunner(max_blocks=1))
    assert job.records.path == job.output.path / ".vemdiffuse" / "jobs" / "invert"
    ((_, receipt),) = read_receipts(job.records, job.digest)
    assert set(receipt.seconds) == {"read", "invert", "write"}
    with pytest.raises(OutputError, match="receipt of run"):
        list(read_receipts(job.records, "0" * 16))
    with pytest.raises(ConfigError, match="job name"):
        records_of_job(parse_address("out.zarr"), "../escape")


def test_a_killed_job_resumes_from_its_receipts(job: InvertJob, tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("inverting.py")), str(tmp_path), "1/1", "9"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL
    n_done = len(list(read_receipts(job.records, job.digest)))
    assert n_done <= 8
    outcome = run_job(job, LocalRunner())
    assert (outcome.n_rendered, outcome.exit_code) == (N_BLOCKS - n_done, 0)
    np.testing.assert_array_equal(inverted(job), 255 - VOLUME)


@pytest.mark.slow
def test_a_job_runs_on_worker_processes(job: InvertJob) -> None:
    assert run_job(job, DaskRunner(RunTable(engine="local", workers=2))).exit_code == 0
    np.testing.assert_array_equal(inverted(job), 255 - VOLUME)
