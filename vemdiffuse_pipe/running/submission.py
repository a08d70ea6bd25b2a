"""A run as a job array: the output is begun, a script is written, and a scheduler is given it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from vemdiffuse_pipe.cluster.resources import check_job_memory
from vemdiffuse_pipe.cluster.schedulers import SUBMIT, Job, array_script
from vemdiffuse_pipe.config import RunFile, Scheduler
from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.output.mask import begin_output, open_run_mask
from vemdiffuse_pipe.output.opening import beside_output, log_folder, prepare, with_measurements
from vemdiffuse_pipe.pricing.run_price import check_price_limit

ANSWERS_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Submission:
    """A script, and where it and what its jobs print go."""

    scheduler: Scheduler
    script: str
    path: Path
    logs: Path


def make_submission(
    run_file: RunFile, file: Path, scheduler: Scheduler, n_jobs: int | None, path: Path | None
) -> Submission:
    """The submission of `run_file`, which is stored in `file`. Nothing is written.

    `n_jobs`: else the most that the run file allows. Raises ConfigError; PlanError where a job may need more
    memory than it is given, and where the run may not take as many GPU-hours as it would.
    """
    cluster = run_file.cluster
    if cluster is None:
        raise ConfigError(
            f"{file} has no [cluster] table; memory_gb at least is needed there, and as a rule queue, "
            "walltime and max_jobs"
        )
    _, plan = prepare(run_file)
    check_job_memory(plan, cluster, 1)
    check_price_limit(plan)
    open_run_mask(plan)  # each job would fail for want of it
    job = Job(cluster, log_folder(plan.run_file), n_jobs or cluster.max_jobs)
    script = array_script(scheduler, job, file.absolute(), Path.cwd(), sys.executable)
    return Submission(
        scheduler, script, path or beside_output(plan.run_file, f".{scheduler}.sh"), job.logs.absolute()
    )


def submit(run_file: RunFile, submission: Submission) -> str:
    """Begin the output, so that jobs need not agree who does; write the script, submit it, return the answer.

    Raises InputError where the output cannot be begun, and ConfigError where the scheduler refuses.
    """
    program = SUBMIT[submission.scheduler]
    if shutil.which(program) is None:
        raise ConfigError(f"{program} is not on the PATH; run this where jobs are submitted")
    source, plan = prepare(run_file)
    begin_output(with_measurements(plan, source))
    try:
        submission.logs.mkdir(parents=True, exist_ok=True)
        submission.path.write_text(submission.script)
    except OSError as error:
        raise ConfigError(
            f"{submission.path} cannot be written ({type(error).__name__}); name another with --script"
        ) from None
    return _given(program, submission.path)


def _given(program: str, script: Path) -> str:
    """What the scheduler's program says when it is given the script; bsub reads it from its input."""
    by_name = program != "bsub"
    try:
        with script.open() as text:
            done = subprocess.run(  # noqa: S603 (one of three programs, and a script that is printed on demand)
                [program, str(script)] if by_name else [program],
                stdin=subprocess.DEVNULL if by_name else text,
                capture_output=True,
                text=True,
                timeout=ANSWERS_WITHIN_S,
                check=False,
            )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"{program} did not answer within {ANSWERS_WITHIN_S} s; look whether the jobs are queued before "
            "submitting again"
        ) from None
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise ConfigError(
            f"{program} refused {script}: {said[-1][:300] if said else f'exit code {done.returncode}'}"
        )
    return done.stdout.strip()
