"""Runs on a real Slurm: jobs are cancelled, and end after a minute; the voxels are those of one process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from slow_server import slow_server
from slurm import cancel, jobs, needs_slurm, slurm, wait_until_none
from small_runs import SHAPE, interpolated, receipt_files, small_run, stored

from vemdiffuse_pipe.config import RunFile, dump
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.monitor.status import status
from vemdiffuse_pipe.phantom import phantom
from vemdiffuse_pipe.storage import create_sink
from vemdiffuse_pipe.testing import VOXEL_SIZE_NM, position_coded

ROOT = Path(__file__).parents[2]
N_BLOCKS = 48

pytestmark = [needs_slurm, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with slurm():
        yield


def write_chunks(folder: Path) -> None:
    """The volume of small runs, 16 x 16 px of a section a file: each block reads files of its own."""
    frame = Frame(SHAPE, VOXEL_SIZE_NM)
    sink = create_sink(
        folder / "source.zarr",
        frame,
        arrays=("em",),
        chunk_shape=(1, 16, 16),
        shard_shape=(1, 16, 16),
        attributes={},
        provenance=np.ones(SHAPE[0], np.uint8),
        output_format="ome-zarr-0.4",
    )
    sink.write("em", frame.box, position_coded(SHAPE))


def slow_run(folder: Path, url: str, **cluster: object) -> tuple[RunFile, Path]:
    """A run of 48 blocks whose source is at `url`, and the file that it is in."""
    run_file = small_run(
        folder,
        source={"url": f"{url}/source.zarr/em"},
        run={"block_shape": (8, 16, 16), "engine": "slurm"},
        cluster={
            "memory_gb": 1.5,
            "cores": 1,
            "gpus": 0,
            "interface": "lo",
            "prologue": [f"export PYTHONPATH={ROOT}"],
            **cluster,
        },
    )
    file = folder / "run.toml"
    file.write_text(dump(run_file))
    return run_file, file


def command_line(file: Path, *arguments: str) -> list[str]:
    command, *options = arguments
    return [sys.executable, "-m", "vemdiffuse_pipe", command, str(file), *options]


def vemdiffuse(file: Path, *arguments: str) -> str:
    """What a command prints. Asserts that it succeeds."""
    done = subprocess.run(
        command_line(file, *arguments),
        cwd=file.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{printed_by_jobs(file.parent)}"
    return done.stdout


def printed_by_jobs(folder: Path) -> str:
    return "\n".join(f"{log}:\n{log.read_text()[-3000:]}" for log in folder.glob("*.logs/*"))


def n_receipts(run_file: RunFile) -> int:
    return sum(file.read_bytes().count(b"\n") for file in receipt_files(run_file))


def wait_for_receipts(run_file: RunFile, n: int) -> None:
    ends = time.monotonic() + 180
    while n_receipts(run_file) < n:
        assert time.monotonic() < ends, printed_by_jobs(Path(run_file.output.url).parent)
        time.sleep(0.1)


def assert_complete(run_file: RunFile) -> None:
    np.testing.assert_array_equal(stored(run_file), interpolated(position_coded(SHAPE), 5))


def test_a_cancelled_job_is_replaced_and_no_voxel_differs(tmp_path: Path) -> None:
    write_chunks(tmp_path)
    with slow_server(tmp_path, 2.0) as url:
        run_file, file = slow_run(tmp_path, url, max_jobs=2, gpus=1, walltime="00:05:00")
        driver = subprocess.Popen(
            command_line(file, "run"),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        wait_for_receipts(run_file, 6)
        for job in jobs("R"):
            cancel(job)
        printed, _ = driver.communicate(timeout=240)
        assert driver.returncode == 0, printed + printed_by_jobs(tmp_path)
        assert_complete(run_file)
    assert not status(run_file.output.url).failed_blocks
    wait_until_none(60)


def test_jobs_that_end_after_a_minute_lose_no_block_and_are_followed_by_others(tmp_path: Path) -> None:
    write_chunks(tmp_path)
    with slow_server(tmp_path, 5.0) as url:
        run_file, file = slow_run(tmp_path, url, walltime="00:01:00")
        vemdiffuse(file, "run")
        assert_complete(run_file)
    logs = [log.read_text() for log in tmp_path.glob("out.zarr.logs/*.log")]
    assert len(logs) > 1, "it was over in one job"
    assert not any("TIME LIMIT" in log for log in logs), logs
    assert n_receipts(run_file) == N_BLOCKS, "a block was done twice"


def steps_of_the_page() -> list[str]:
    """The commands of the section on clusters, in order."""
    first, _ = (ROOT / "workflows/cluster.md").read_text().split("\n## How a job ends\n")
    return re.findall(r"^\$ vemdiffuse (.*)$", first, re.MULTILINE)


def test_the_page_on_clusters_leads_to_a_finished_run(tmp_path: Path) -> None:
    voxels = np.resize(phantom((64, 48, 48), 1)[:, :48, :40], (3, 48, 40))
    tifffile.imwrite(tmp_path / "stack.tif", voxels, photometric="minisblack")
    text = (ROOT / "workflows/slurm.toml").read_text()
    for written, here in (
        ('"gpu"', '"debug"'),
        ('"cuda"', '"cpu"'),
        ("cores = 4", "cores = 1"),
        ("16.0", "1.5"),
    ):
        assert written in text
        text = text.replace(written, here)
    (tmp_path / "slurm.toml").write_text(text)
    for step in steps_of_the_page():
        script = f'"{sys.executable}" -m vemdiffuse_pipe {step}'
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{step}\n{done.stdout}\n{done.stderr}\n{printed_by_jobs(tmp_path)}"
        wait_until_none(300)
    found = status(str(tmp_path / "isotropic.zarr"))
    assert found.n_blocks_done == found.n_blocks


def test_an_array_of_eight_does_a_run(tmp_path: Path) -> None:
    write_chunks(tmp_path)
    with slow_server(tmp_path, 0.0) as url:
        run_file, file = slow_run(tmp_path, url, walltime="00:05:00")
        assert "job" in vemdiffuse(file, "submit", "--jobs", "8")
        assert len(jobs()) > 1
        wait_until_none(240)
        assert status(run_file.output.url).n_blocks_done == N_BLOCKS, printed_by_jobs(tmp_path)
        assert_complete(run_file)


def test_an_array_whose_jobs_are_cancelled_and_end_after_a_minute_completes_when_submitted_again(
    tmp_path: Path,
) -> None:
    write_chunks(tmp_path)
    with slow_server(tmp_path, 2.0) as url:
        run_file, file = slow_run(tmp_path, url, walltime="00:01:00")
        vemdiffuse(file, "submit", "--jobs", "2")
        wait_for_receipts(run_file, 2)
        cancel(jobs("R")[0])
        wait_until_none(180)
        n_submissions = 1
        while status(run_file.output.url).n_blocks_done < N_BLOCKS:
            assert n_submissions < 10, printed_by_jobs(tmp_path)
            n_before = status(run_file.output.url).n_blocks_done
            vemdiffuse(file, "submit", "--jobs", "2")
            wait_until_none(180)
            n_submissions += 1
            assert status(run_file.output.url).n_blocks_done > n_before, printed_by_jobs(tmp_path)
        assert n_submissions > 1
        assert_complete(run_file)
