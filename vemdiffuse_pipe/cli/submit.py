"""vemdiffuse submit: hand a run to a batch scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click

from vemdiffuse_pipe import config
from vemdiffuse_pipe.cli.options import run_file_argument, say_what_is_not_checked
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
    """Hand a run to a batch scheduler, as a job array.

    Submitting again resumes.

    Each job does a part of the run and then helps the others; none needs to know of them. What a job is given
    stands in [cluster] of the run file.

    \b
    Examples:
      vemdiffuse submit slurm.toml --jobs 64 --dry-run --scheduler slurm
    """
    from vemdiffuse_pipe.cluster.schedulers import find_scheduler
    from vemdiffuse_pipe.running.submission import make_submission, submit

    run_file = config.load(file)
    chosen = cast(Scheduler, scheduler) if scheduler else find_scheduler()
    submission = make_submission(run_file, file, chosen, jobs, script)
    say_what_is_not_checked(run_file)
    if dry_run:
        click.echo(submission.script, nl=False)
        return 0
    click.echo(submit(run_file, submission))
    click.echo(
        f"script {submission.path}, logs {submission.logs}; `vemdiffuse status {run_file.output.url}` says "
        "how far it is, and submitting again goes on from there"
    )
    return 0
