"""Job scripts for batch schedulers: the same job in the words of Slurm, LSF, PBS and SGE. Text only.

directives      what follows the scheduler's mark at the head of a job script
array_script    a job array: each of its jobs does a part of a run, and no job knows of another
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from vemdiffuse_pipe.config import SCHEDULERS, ClusterTable, Scheduler
from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.storage.address import stated_endpoint

MARKS: Mapping[Scheduler, str] = {"slurm": "#SBATCH", "lsf": "#BSUB", "pbs": "#PBS", "sge": "#$"}
SUBMIT: Mapping[Scheduler, str] = {"slurm": "sbatch", "lsf": "bsub", "pbs": "qsub", "sge": "qsub"}

MAX_WARNING_S = 120  # before the end of a job: for the blocks in flight, and their receipts


@dataclass(frozen=True, slots=True)
class Job:
    """One job, or an array of `n_jobs`. `logs`: the folder of what it prints."""

    cluster: ClusterTable
    logs: Path
    n_jobs: int | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError for a folder that cannot stand in a directive: not all of them know quotes."""
        if not re.fullmatch(r"[\w.@:/+=,~-]+", str(self.logs)):
            raise ConfigError(
                f"{self.logs} has characters that batch schedulers do not take in a path; choose an output "
                "whose path has letters, digits and ._-/ only"
            )

    @property
    def name(self) -> str:
        """As the queue shows it."""
        return "vemdiffuse"

    @property
    def memory_mb(self) -> int:
        """Of the whole job."""
        return ceil(self.cluster.memory_gb * 1000)

    @property
    def warning_s(self) -> int:
        """How long before its end a job is warned: at most a quarter of its walltime."""
        return min(MAX_WARNING_S, self.cluster.walltime_s // 4)

    @property
    def minutes(self) -> str:
        """The walltime as HH:MM, rounded up."""
        total = ceil(self.cluster.walltime_s / 60)
        return f"{total // 60:02}:{total % 60:02}"

    @property
    def is_array(self) -> bool:
        """True for more than one job: PBS and LSF know no array of one."""
        return self.n_jobs is not None and self.n_jobs > 1


def find_scheduler(environ: Mapping[str, str] = os.environ) -> Scheduler:
    """The scheduler whose programs are on the PATH. Raises ConfigError where none is."""
    path = environ.get("PATH")
    if shutil.which("sbatch", path=path):
        return "slurm"
    if shutil.which("bsub", path=path):
        return "lsf"
    if shutil.which("qsub", path=path):
        return "sge" if "SGE_ROOT" in environ or shutil.which("qconf", path=path) else "pbs"
    raise ConfigError(
        "none of sbatch, bsub and qsub is on the PATH; run this where jobs are submitted, or print a script "
        f"with --dry-run and --scheduler {'|'.join(SCHEDULERS)}"
    )


def header(scheduler: Scheduler, job: Job) -> str:
    """The directives as they stand in a script."""
    return "".join(f"{MARKS[scheduler]} {directive}\n" for directive in directives(scheduler, job))


def directives(scheduler: Scheduler, job: Job) -> list[str]:
    """What follows the scheduler's mark, the run file's own last."""
    return [*_WORDS[scheduler](job), *job.cluster.extra_directives]


def array_script(scheduler: Scheduler, job: Job, run_file: Path, folder: Path, python: str) -> str:
    """A script whose jobs do the parts of `run_file`, seen from `folder`, until nothing is left.

    `exec`: the signal that comes before the end reaches Python itself. Raises ConfigError for jobs that would
    leave all GPUs but one idle, and for an endpoint that holds a password.
    """
    if job.cluster.gpus > 1:
        raise ConfigError(
            f"gpus = {job.cluster.gpus} in [cluster]; a job of an array is one process with one GPU: set it "
            "to 1 and submit more jobs, or use an engine whose jobs have several workers"
        )
    part = "auto" if job.is_array else "1/1"
    if scheduler == "pbs" and job.is_array:  # it numbers jobs and does not say how many there are
        part = f"auto/{job.n_jobs}"
    command = [python, "-m", "vemdiffuse_pipe", "run", str(run_file), "--engine", "threads"]
    if endpoint := stated_endpoint():  # not every scheduler hands the environment on
        command += ["--endpoint-url", endpoint]
    lines = [
        f"cd {shlex.quote(str(folder))} || exit 1",
        *job.cluster.prologue,
        f"exec {shlex.join(command)} --part {part} --walltime {job.cluster.walltime}",
    ]
    return "#!/bin/bash\n" + header(scheduler, job) + "\n" + "\n".join(lines) + "\n"


def _slurm(job: Job) -> Iterator[str]:
    cluster, is_part = job.cluster, job.n_jobs is not None
    yield f"--job-name={job.name}"
    if job.is_array:
        yield f"--array=1-{job.n_jobs}"
    yield f"--output={job.logs}/{'%A_%a' if job.is_array else '%j'}.log"
    yield "--open-mode=append"
    if cluster.queue:
        yield f"--partition={cluster.queue}"
    if cluster.account:
        yield f"--account={cluster.account}"
    yield f"--time={cluster.walltime}"
    yield "--nodes=1"
    yield "--ntasks=1"
    yield f"--cpus-per-task={cluster.cores}"
    yield f"--mem={job.memory_mb}M"
    if cluster.gpus:
        yield f"--gres=gpu:{cluster.gpus}"
    yield "--requeue" if is_part else "--no-requeue"
    if is_part:
        yield f"--signal=B:USR1@{job.warning_s}"


def _lsf(job: Job) -> Iterator[str]:
    cluster, is_part = job.cluster, job.n_jobs is not None
    yield f'-J "{job.name}[1-{job.n_jobs}]"' if job.is_array else f"-J {job.name}"
    yield f"-o {job.logs}/{'%J_%I' if job.is_array else '%J'}.log"
    if cluster.queue:
        yield f"-q {cluster.queue}"
    if cluster.account:
        yield f"-P {cluster.account}"
    yield f"-W {job.minutes}"
    yield f"-n {cluster.cores}"
    yield '-R "span[hosts=1]"'
    yield f'-R "rusage[mem={job.memory_mb}MB]"'
    if cluster.gpus:
        yield f'-gpu "num={cluster.gpus}"'
    yield "-r" if is_part else "-rn"
    if is_part and job.warning_s >= 60:  # it counts in minutes
        yield "-wa USR1"
        yield f"-wt {job.warning_s // 60}"


def _pbs(job: Job) -> Iterator[str]:
    cluster, is_part = job.cluster, job.n_jobs is not None
    yield f"-N {job.name}"
    if job.is_array:
        yield f"-J 1-{job.n_jobs}"
    yield f"-o {job.logs}/"
    yield "-j oe"
    if cluster.queue:
        yield f"-q {cluster.queue}"
    if cluster.account:
        yield f"-A {cluster.account}"
    yield f"-l walltime={cluster.walltime}"
    gpus = f":ngpus={cluster.gpus}" if cluster.gpus else ""
    yield f"-l select=1:ncpus={cluster.cores}:mem={job.memory_mb}mb{gpus}"
    yield "-r y" if is_part else "-r n"


def _sge(job: Job) -> Iterator[str]:
    cluster, is_part = job.cluster, job.n_jobs is not None
    yield f"-N {job.name}"
    if job.is_array:
        yield f"-t 1-{job.n_jobs}"
    yield f"-o {job.logs}/"
    yield "-j y"
    yield "-S /bin/bash"
    if cluster.queue:
        yield f"-q {cluster.queue}"
    if cluster.account:
        yield f"-P {cluster.account}"
    yield f"-l h_rt={cluster.walltime}"
    if is_part:  # a soft limit is a SIGUSR1
        yield f"-l s_rt={_clock(cluster.walltime_s - job.warning_s)}"
    yield f"-l mem_free={ceil(job.memory_mb / cluster.cores)}M"  # where it is consumed, each slot takes it
    if cluster.cores > 1:
        yield f"-pe smp {cluster.cores}"
    if cluster.gpus:
        yield f"-l gpu={cluster.gpus}"
    yield "-r y" if is_part else "-r n"


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


_WORDS: Mapping[Scheduler, Callable[[Job], Iterator[str]]] = {
    "slurm": _slurm,
    "lsf": _lsf,
    "pbs": _pbs,
    "sge": _sge,
}
