"""`vemdiffuse submit`, and the scripts that batch schedulers are given: compared with files.

After a change that is meant, write them anew: GOLDEN=write pytest tests/cli/test_cli_submit.py
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from small_volumes import Ended

from vemdiffuse_pipe import config
from vemdiffuse_pipe.cluster.batch import job_script
from vemdiffuse_pipe.cluster.engines import GPU, THREADS_PER_WORKER
from vemdiffuse_pipe.cluster.schedulers import Job, array_script, find_scheduler
from vemdiffuse_pipe.config import SCHEDULERS, ClusterTable, Scheduler
from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.output.run_output import open_run_output
from vemdiffuse_pipe.storage import open_sink

WORKFLOWS = Path(__file__).parents[2] / "workflows"
GOLDEN = Path(__file__).parent / "golden"

EVERYTHING = ClusterTable(
    queue="gpu",
    account="em",
    walltime="12:30:00",
    memory_gb=64.5,
    gpus=4,
    cores=32,
    min_jobs=2,
    max_jobs=16,
    extra_directives=("--one-of-my-own",),
    prologue=("module load cuda", "source ~/em/bin/activate"),
    interface="ib0",
)


def check_golden(name: str, text: str) -> None:
    text = text.replace(sys.executable, "/env/bin/python")
    golden = GOLDEN / name
    if os.environ.get("GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.fixture
def run_file(here: Path) -> Callable[..., Path]:
    """Writes a run file for a small stack, with what is given of [cluster]."""
    tifffile.imwrite(here / "stack.tif", np.full((3, 24, 24), 99, np.uint8), photometric="minisblack")

    def write(*, engine: str = "threads", **cluster: object) -> Path:
        parsed = config.parse(
            {
                "source": {"url": "stack.tif", "voxel_size_nm": (50, 10, 10)},
                "output": {"url": "out.zarr"},
                "model": {"name": "linear"},
                "run": {"engine": engine},
                "cluster": {"memory_gb": 4, "queue": "short", "max_jobs": 8, **cluster},
            }
        )
        (here / "run.toml").write_text(config.dump(parsed))
        return here / "run.toml"

    return write


def program(folder: Path, name: str, script: str) -> None:
    """A program of a scheduler that is not installed here."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_script_of_a_workflow_reads_as_it_did(
    here: Path, vemdiffuse: Callable[..., Ended], scheduler: Scheduler
) -> None:
    tifffile.imwrite(here / "stack.tif", np.zeros((50, 1024, 1024), np.uint8), compression="zlib")
    (here / f"{scheduler}.toml").write_bytes((WORKFLOWS / f"{scheduler}.toml").read_bytes())
    ended = vemdiffuse("submit", f"{scheduler}.toml", "--jobs", "64", "--dry-run", "--scheduler", scheduler)
    assert ended.code == 0, ended.stderr
    check_golden(f"submit_{scheduler}.sh", ended.stdout.replace(str(here), "/scratch"))
    assert sorted(path.name for path in here.iterdir()) == [f"{scheduler}.toml", "stack.tif"]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_script_of_a_workers_job_reads_as_it_did(scheduler: Scheduler) -> None:
    logs = Path("/scratch/out.zarr.logs")
    script = job_script(scheduler, EVERYTHING, logs, GPU, THREADS_PER_WORKER)
    check_golden(f"worker_{scheduler}.sh", script)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_single_job_is_no_array_and_does_the_whole(scheduler: Scheduler) -> None:
    job = Job(ClusterTable(memory_gb=1), Path("/scratch/logs"), 1)
    script = array_script(scheduler, job, Path("/scratch/run.toml"), Path("/scratch"), "python")
    assert " --part 1/1 " in script
    assert not any(word in script for word in ("--array", "[1-1]", "-J 1-1", "-t 1-1"))


def test_no_credential_of_the_environment_is_in_a_script(
    run_file: Callable[..., Path], vemdiffuse: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t-of-mine")
    file = run_file()
    scripts = [vemdiffuse("submit", file, "--dry-run", "--scheduler", one).stdout for one in SCHEDULERS] + [
        job_script(one, EVERYTHING, Path("/scratch/logs"), GPU, THREADS_PER_WORKER) for one in SCHEDULERS
    ]
    assert all(scripts)
    assert "s3cr3t" not in "".join(scripts)


def test_an_endpoint_with_a_password_is_in_no_script_and_no_sentence(
    run_file: Callable[..., Path], vemdiffuse: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:s3cr3t@minio:9000")
    file = run_file()
    by_variable = [vemdiffuse("submit", file, "--dry-run", "--scheduler", one) for one in SCHEDULERS]
    by_option = vemdiffuse("inspect", "s3://b/x", "--endpoint-url", "http://me:s3cr3t@minio:9000")
    for ended in (*by_variable, vemdiffuse("inspect", "s3://b/x"), by_option):
        assert (ended.code, ended.stdout, len(ended.stderr.splitlines())) == (2, "", 1)
        assert "the endpoint of a store" in ended.stderr
        assert "s3cr3t" not in ended.stderr
    assert sorted(path.name for path in file.parent.iterdir()) == ["run.toml", "stack.tif"]


def test_an_address_with_a_password_has_no_place_in_a_job_script(
    run_file: Callable[..., Path],
) -> None:
    with pytest.raises(ConfigError, match="credentials do not belong in a job script") as caught:
        run_file(prologue=["export AWS_ENDPOINT_URL=http://me:s3cr3t@minio:9000"])
    assert "s3cr3t" not in str(caught.value)


def test_a_submission_begins_the_output_and_gives_the_script_to_the_scheduler(
    here: Path,
    run_file: Callable[..., Path],
    vemdiffuse: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program(here, "sbatch", 'cat "$1" > given.sh; echo "Submitted batch job 7"')
    monkeypatch.setenv("PATH", f"{here}/bin:{os.environ['PATH']}")
    ended = vemdiffuse("submit", run_file())
    assert ended.code == 0, ended.stderr
    assert ended.stdout.startswith("Submitted batch job 7\n")
    assert "--array=1-8" in (here / "given.sh").read_text()
    assert (here / "out.zarr.slurm.sh").read_text() == (here / "given.sh").read_text()
    assert open_sink(str(here / "out.zarr")).arrays
    assert vemdiffuse("submit", "run.toml").code == 0, "submitting again"


def test_bsub_is_given_the_script_on_its_input(
    here: Path,
    run_file: Callable[..., Path],
    vemdiffuse: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program(here, "bsub", 'cat > given.sh; echo "Job <7> is submitted"')
    monkeypatch.setenv("PATH", f"{here}/bin:{os.environ['PATH']}")
    assert vemdiffuse("submit", run_file(), "--scheduler", "lsf", "--script", "mine.sh").code == 0
    assert (here / "mine.sh").read_text() == (here / "given.sh").read_text()


@pytest.mark.parametrize("arguments", [("submit", "run.toml"), ("run", "run.toml", "--engine", "slurm")])
def test_a_refusal_of_the_scheduler_is_one_sentence(
    here: Path,
    run_file: Callable[..., Path],
    vemdiffuse: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
) -> None:
    run_file(interface="lo")
    program(here, "sbatch", 'echo "sbatch: error: invalid partition specified: short" >&2; exit 1')
    monkeypatch.setenv("PATH", f"{here}/bin:{os.environ['PATH']}")
    ended = vemdiffuse(*arguments)
    assert ended.code == 2
    assert "refused" in ended.stderr
    assert ended.stderr.endswith("sbatch: error: invalid partition specified: short\n")


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        ({"gpus": 2}, "one process with one GPU"),
        ({"memory_gb": 0.1}, "GB are available"),
    ],
)
def test_what_no_array_can_do_is_refused_before_anything_is_written(
    here: Path,
    run_file: Callable[..., Path],
    vemdiffuse: Callable[..., Ended],
    cluster: dict[str, object],
    said: str,
) -> None:
    ended = vemdiffuse("submit", run_file(**cluster), "--scheduler", "slurm")
    assert ended.code == 2
    assert said in ended.stderr
    assert not (here / "out.zarr").exists()


def test_a_path_that_no_directive_can_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match="choose an output"):
        Job(ClusterTable(memory_gb=1), Path("/scratch/my volumes/out.zarr.logs"), 4)


def test_a_run_file_without_a_cluster_is_told_what_it_lacks(
    here: Path, run_file: Callable[..., Path], vemdiffuse: Callable[..., Ended]
) -> None:
    file = run_file()
    file.write_text(file.read_text().split("[cluster]")[0])
    for arguments in (("submit", file, "--scheduler", "slurm"), ("run", file, "--engine", "slurm")):
        ended = vemdiffuse(*arguments)
        assert (ended.code, "[cluster] table" in ended.stderr) == (2, True), ended.stderr
    assert not (here / "out.zarr").exists()


def test_schedulers_are_found_by_their_programs(tmp_path: Path) -> None:
    environ = {"PATH": str(tmp_path / "bin")}
    with pytest.raises(ConfigError, match="none of sbatch, bsub and qsub"):
        find_scheduler(environ)
    for name, expected in (("qsub", "pbs"), ("qconf", "sge"), ("bsub", "lsf"), ("sbatch", "slurm")):
        program(tmp_path, name, "true")
        assert find_scheduler(environ) == expected


def test_an_output_does_not_say_what_batch_jobs_run_nor_whom_to_connect_to(
    here: Path, run_file: Callable[..., Path], vemdiffuse: Callable[..., Ended]
) -> None:
    program(here, "sbatch", "echo Submitted")
    file = run_file(engine="tcp://192.0.2.1:8786", prologue=("touch /tmp/was-here",))
    environ = {"PATH": f"{here}/bin:{os.environ['PATH']}"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", environ["PATH"])
        assert vemdiffuse("submit", file).code == 0
    sink = open_sink(str(here / "out.zarr"))
    assert "was-here" not in str(sink.attributes)
    sink.attributes["run_file"] = file.read_text()
    stored = replace(open_run_output(str(here / "out.zarr")), sink=sink).run_file
    assert (stored.run.engine, stored.cluster) == ("threads", None)
    assert vemdiffuse("retry", "out.zarr").code == 0
