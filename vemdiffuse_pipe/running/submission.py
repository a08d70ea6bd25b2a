"""A run as a job array: the output is created, a script is written, and a scheduler is given the script."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from vemdiffuse_pipe.cluster.schedulers import SUBMIT, Job, array_script
from vemdiffuse_pipe.config import RunFile, Scheduler
from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.output.mask import start_output
from vemdiffuse_pipe.output.measurements import with_measurements
from vemdiffuse_pipe.output.preparation import beside_output, log_folder, prepare
from vemdiffuse_pipe.output.run_output import find_run_output
from vemdiffuse_pipe.running.preconditions import Where, check_run

SUBMIT_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Submission:
    """A job script, not submitted yet."""

    scheduler: Scheduler
    """Which one it is for."""
    script: str
    """Its text."""
    path: Path
    """Where it is written."""
    logs: Path
    """The folder for what its jobs print."""


def make_submission(
    run_file: RunFile, file: Path, scheduler: Scheduler, n_jobs: int | None, path: Path | None
) -> Submission:
    """The submission of `run_file`, which is stored in `file`. Nothing is written.

    `n_jobs`: else max_jobs of the run file. Raises what `check_run` raises.

    Example:

        >>> from pathlib import Path
        >>> from vemdiffuse_pipe import load_run_file, make_submission
        >>> file = Path("linear.toml")
        >>> submission = make_submission(load_run_file(file), file, "slurm", 8, None)
        >>> "#SBATCH --array=1-8" in submission.script
        True
    """
    _, plan = prepare(run_file)
    check_run(plan, Where.JOBS)
    cluster = run_file.cluster
    assert cluster is not None  # checked
    job = Job(cluster, log_folder(plan.run_file), n_jobs or cluster.max_jobs)
    script = array_script(scheduler, job, file.absolute(), Path.cwd(), sys.executable)
    return Submission(
        scheduler, script, path or beside_output(plan.run_file, f".{scheduler}.sh"), job.logs.absolute()
    )


def submit(run_file: RunFile, submission: Submission) -> str:
    """Create the output, so that jobs need not agree who does; write the script, submit it, return the
    answer.

    Raises InputError where the output cannot be created, and ConfigError where the scheduler refuses.

    Example:

        >>> from pathlib import Path
        >>> from vemdiffuse_pipe import load_run_file, make_submission, submit
        >>> file = Path("linear.toml")
        >>> run_file = load_run_file(file)
        >>> submit(run_file, make_submission(run_file, file, "slurm", 8, None))
        'Submitted batch job 1'
    """
    program = SUBMIT[submission.scheduler]
    if shutil.which(program) is None:
        raise ConfigError(f"{program} is not on the PATH; run this where jobs are submitted")
    source, plan = prepare(run_file)
    output = find_run_output(plan)
    start_output(with_measurements(plan, source, output), output)
    try:
        submission.logs.mkdir(parents=True, exist_ok=True)
        submission.path.write_text(submission.script)
    except OSError as error:
        raise ConfigError(
            f"{submission.path} cannot be written ({type(error).__name__}); name another with --script"
        ) from None
    return _answer(program, submission.path)


def _answer(program: str, script: Path) -> str:
    """What the scheduler's program prints when it is given the script; bsub reads it from its input."""
    by_name = program != "bsub"
    try:
        with script.open() as text:
            done = subprocess.run(  # noqa: S603 (one of three programs, and a script that is printed on demand)
                [program, str(script)] if by_name else [program],
                stdin=subprocess.DEVNULL if by_name else text,
                capture_output=True,
                text=True,
                timeout=SUBMIT_TIMEOUT_S,
                check=False,
            )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"{program} did not answer within {SUBMIT_TIMEOUT_S} s; look whether the jobs are queued before "
            "submitting again"
        ) from None
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise ConfigError(
            f"{program} refused {script}: {lines[-1][:300] if lines else f'exit code {done.returncode}'}"
        )
    return done.stdout.strip()
