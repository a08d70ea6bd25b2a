"""vemdiffuse run: do what a run file says."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from vemdiffuse_pipe import config
from vemdiffuse_pipe.cli.options import engine_option, json_option, run_file_argument


@click.command("run")
@run_file_argument
@engine_option
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@json_option
def command(file: Path, engine: str | None, dry_run: bool, as_json: bool) -> int:
    """Do what a run file says; running again resumes.

    Exit code 0: complete. 1: blocks were set aside, or it stopped midway. 2: nothing was started.

    \b
    Examples:
      vemdiffuse run run.toml --dry-run
      vemdiffuse run run.toml
      vemdiffuse run run.toml --engine local
    """
    run_file = config.with_engine(config.load(file), engine)
    if dry_run:
        return _dry_run(run_file, as_json)
    return _run(run_file, as_json)


def _dry_run(run_file: config.RunFile, as_json: bool) -> int:
    from vemdiffuse_pipe.cli.plan_report import print_plan
    from vemdiffuse_pipe.running.opening import prepare

    _, plan = prepare(run_file)
    print_plan(plan, with_time=False, as_json=as_json)
    return 0


def _run(run_file: config.RunFile, as_json: bool) -> int:
    from vemdiffuse_pipe.cli.outcome import print_outcome
    from vemdiffuse_pipe.cli.progress import progress
    from vemdiffuse_pipe.running.reconstruct import run

    with progress(sys.stderr) as listener:
        outcome = run(run_file, listener=listener)
    return print_outcome(run_file.output.url, outcome, as_json=as_json)
