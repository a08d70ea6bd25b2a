"""How much time a batch job has left, and how long its blocks take: what would not finish is not started."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import ceil

import psutil

from vemdiffuse_pipe.cluster.hosts import job_id
from vemdiffuse_pipe.config import ClusterTable
from vemdiffuse_pipe.errors import ConfigError

ANSWERS_WITHIN_S = 10
NEWEST = 256

_CLOCK = re.compile(r"(?:(\d{1,4})-)?(?:(\d{1,5}):)?(\d{1,5}):(\d{1,5})", re.ASCII)


def time_left_s(
    environ: Mapping[str, str] = os.environ,
    now: Callable[[], float] = time.time,
    ask: Callable[[Sequence[str]], str] | None = None,
) -> float | None:
    """Seconds until the scheduler ends this job; None outside of one, or where it is not known.

    Slurm's SLURM_JOB_END_TIME (seconds since 1970), else what squeue says of the job. `ask`: the output of a
    command, '' where it fails.
    """
    end = environ.get("SLURM_JOB_END_TIME", "")
    if re.fullmatch(r"\d{1,12}", end, re.ASCII):
        return int(end) - now()
    job = _slurm_job(environ)
    if job is None:
        return None
    return _seconds((ask or _output)(["squeue", "-h", "-j", job, "-o", "%L"]).strip())


def _slurm_job(environ: Mapping[str, str]) -> str | None:
    """The job as squeue is asked for it. By its own number, one job of an array may mean the whole array."""
    array, task = environ.get("SLURM_ARRAY_JOB_ID", ""), environ.get("SLURM_ARRAY_TASK_ID", "")
    job = f"{array}_{task}" if array and task else environ.get("SLURM_JOB_ID", "")
    return job if re.fullmatch(r"\d{1,12}(_\d{1,12})?", job, re.ASCII) else None


def parse_walltime(text: str) -> float:
    """Seconds of `D-HH:MM:SS`, `HH:MM:SS` or `MM:SS`, as schedulers write them. Raises ConfigError."""
    seconds = _seconds(text)
    if not seconds:
        raise ConfigError(f"walltime {text[:40]!r}; hours, minutes and seconds are needed: 04:00:00")
    return seconds


def running_s() -> float:
    """Seconds since this process began, imports included."""
    return max(0.0, time.time() - float(psutil.Process().create_time()))


def _seconds(text: str) -> float | None:
    match = _CLOCK.fullmatch(text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _output(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603 (the one command above)
            command, capture_output=True, text=True, timeout=ANSWERS_WITHIN_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""


class BlockTimes:
    """How long the newest blocks took, in seconds, from when they were taken to when they had a receipt."""

    def __init__(self) -> None:
        self._newest: deque[float] = deque(maxlen=NEWEST)

    def add(self, seconds: float) -> None:
        """A block is done."""
        self._newest.append(seconds)

    @property
    def p95(self) -> float:
        """The 95th percentile by nearest rank; 0 before there is any."""
        if not self._newest:
            return 0.0
        return sorted(self._newest)[ceil(0.95 * len(self._newest)) - 1]


class Deadline:
    """When this process is ended. `left_s`: seconds from now, None where nothing ends it."""

    def __init__(self, left_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends = None if left_s is None else clock() + left_s

    def left_s(self) -> float:
        """Seconds that are left; infinite where nothing ends it."""
        return float("inf") if self._ends is None else self._ends - self._clock()

    def leaves_time_for(self, times: BlockTimes) -> bool:
        """True where a block that is taken now will most likely be done."""
        return self._ends is None or self.left_s() >= times.p95


def stated_walltime_s(cluster: ClusterTable | None, environ: Mapping[str, str] = os.environ) -> float | None:
    """Seconds that [cluster] states for a job, where this process is a batch job: a laptop has time.

    None where it leaves them out: its default is what `submit` asks for, and this job may have more.
    """
    if cluster is None or "walltime" not in cluster.model_fields_set or not job_id(environ):
        return None
    return cluster.walltime_s


def deadline_of(walltime_s: float | None, environ: Mapping[str, str] = os.environ) -> Deadline:
    """The end of this process: as its scheduler says, else `walltime_s` after its beginning, else none."""
    left_s = time_left_s(environ)
    if left_s is None and walltime_s is not None:
        left_s = walltime_s - running_s()
    return Deadline(left_s)
