"""A real Slurm on this machine: one node, two generic GPUs backed by null devices. Needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "shared" / "slurm"


def why_not() -> str:
    """Why no Slurm can be started here; '' where it can."""
    if not (SCRIPTS / "start.sh").exists():
        return "../shared/slurm, which configures a Slurm for tests, is not here"
    if os.geteuid() != 0:
        return "Slurm's daemons are started as root"
    if not all(
        shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in ("slurmctld", "munged")
    ):
        return "slurm-wlm and munge are not installed"
    return ""


needs_slurm = pytest.mark.skipif(bool(why_not()), reason=why_not() or "Slurm is here")


@contextmanager
def slurm() -> Iterator[None]:
    """While it lasts, sbatch and its like speak to a Slurm of this test's own."""
    folder = tempfile.mkdtemp(prefix="sl", dir="/tmp")  # short: of a socket's path 107 characters are heard
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = f"{folder}/slurm.conf"
    try:
        started = subprocess.run(
            [SCRIPTS / "start.sh", folder], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120
        )
        assert started.returncode == 0, started.stdout.decode()
        yield
    finally:
        subprocess.run([SCRIPTS / "stop.sh", folder], capture_output=True, timeout=120)
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before
        shutil.rmtree(folder, ignore_errors=True)


def jobs(state: str = "all") -> list[str]:
    """The ids of the jobs in a state, those of an array one by one."""
    states = "PD,R,CG,S,CF" if state == "all" else state
    command = ["squeue", "--noheader", "--array", f"--states={states}", "--format=%i"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def cancel(job: str) -> None:
    """End a job as its owner would."""
    subprocess.run(["scancel", job], check=True)


def wait_until_none(within_s: float) -> None:
    """Returns when no job is queued or runs."""
    ends = time.monotonic() + within_s
    while jobs():
        assert time.monotonic() < ends, f"jobs {jobs()} are still there after {within_s} s"
        time.sleep(0.5)
