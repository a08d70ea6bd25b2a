"""vemdiffuse submit: submit a run to a batch scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click

from vemdiffuse_pipe import config
from vemdiffuse_pipe.cli.options import run_file_argument, warn_unchecked_limit
from vemdiffuse_pipe.config import SCHEDULERS, Scheduler


@click.command("submit")
@run_file_argument
@click.option(
    "--jobs",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="Jobs of the array; else max_jobs in [cluster].",
)
@click.option("--scheduler", type=click.Choice(SCHEDULERS), help="Else the one that is on the PATH.")
@click.option(
    "--script",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Where the script is written; else beside the output.",
)
@click.option("--dry-run", is_flag=True, help="Print the script and stop; nothing is written.")
def command(file: Path, jobs: int | None, scheduler: str | None, script: Path | None, dry_run: bool) -> int:
    """Submit a run to a batch scheduler, as a job array.

    Each job processes a part of the run, then unfinished blocks of other parts. Jobs do not wait for each
    other. [cluster] in the run file states the queue, memory and time of a job. Submit again to resume.

    \b
    Examples:
      vemdiffuse submit slurm.toml --jobs 64 --dry-run --scheduler slurm
    """
    from vemdiffuse_pipe.cluster.schedulers import find_scheduler
    from vemdiffuse_pipe.running.submission import make_submission, submit

    run_file = config.load(file)
    chosen = cast(Scheduler, scheduler) if scheduler else find_scheduler()
    submission = make_submission(run_file, file, chosen, jobs, script)
    warn_unchecked_limit(run_file)
    if dry_run:
        click.echo(submission.script, nl=False)
        return 0
    click.echo(submit(run_file, submission))
    click.echo(
        f"script {submission.path}, logs {submission.logs}; `vemdiffuse status {run_file.output.url}` shows "
        "progress; submit again to resume"
    )
    return 0
