"""vemdiffuse run: carry out a run file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from vemdiffuse_pipe import config
from vemdiffuse_pipe.cli.options import (
    engine_option,
    json_option,
    run_file_argument,
    warn_unchecked_limit,
)
from vemdiffuse_pipe.cluster.walltime import parse_walltime
from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.records.parts import Part, parse_part


@click.command("run")
@run_file_argument
@click.option(
    "--part",
    metavar="I/N",
    help="Process part I of N, then unfinished blocks of other parts; auto: as the job array says.",
)
@click.option(
    "--walltime",
    metavar="HH:MM:SS",
    help="With --part: time limit of this job, where the scheduler states none; else that of [cluster]. "
    "No block is started that would not finish in time.",
)
@engine_option
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--dashboard", is_flag=True, help="Serve dask's dashboard on this machine; needs bokeh.")
@json_option
def command(
    file: Path,
    part: str | None,
    walltime: str | None,
    engine: str | None,
    dry_run: bool,
    dashboard: bool,
    as_json: bool,
) -> int:
    """Carry out a run file; rerun to resume.

    Exit code 0: complete, or drained before its time was up. 1: blocks failed, or the run stopped midway.
    2: nothing was started.

    \b
    Examples:
      vemdiffuse run run.toml --dry-run
      vemdiffuse run run.toml
      vemdiffuse run run.toml --part 3/8
      vemdiffuse run run.toml --engine local
    """
    if walltime is not None and part is None:
        raise ConfigError("--walltime is for a part; write --part 1/1 for the whole")
    if part is not None and engine not in (None, "threads"):
        raise ConfigError(
            f"--part works in this process alone, without --engine {engine[:40]}; leave one of the two out"
        )
    run_file = config.with_engine(config.load(file), engine)
    chosen = None if part is None else parse_part(part, os.environ)
    walltime_s = None if walltime is None else parse_walltime(walltime)
    if dashboard:
        run_file = run_file.model_copy(update={"run": run_file.run.model_copy(update={"dashboard": True})})
    if dry_run:
        return _dry_run(run_file, chosen, as_json)
    return _run(run_file, chosen, walltime_s, as_json)


def _dry_run(run_file: config.RunFile, part: Part | None, as_json: bool) -> int:
    from vemdiffuse_pipe.cli.plan_report import print_plan
    from vemdiffuse_pipe.output.preparation import prepare
    from vemdiffuse_pipe.running.preconditions import Where, check_run

    _, plan = prepare(run_file)
    print_plan(plan, None, as_json=as_json)
    check_run(plan, Where.THIS_PROCESS if part else Where.ENGINE)
    warn_unchecked_limit(run_file)
    return 0


def _run(run_file: config.RunFile, part: Part | None, walltime_s: float | None, as_json: bool) -> int:
    from vemdiffuse_pipe.cli.outcome import print_outcome
    from vemdiffuse_pipe.cli.progress import progress
    from vemdiffuse_pipe.running.reconstruct import run

    warn_unchecked_limit(run_file)
    with progress(sys.stderr) as listener:
        outcome = run(run_file, listener=listener, part=part, walltime_s=walltime_s)
    return print_outcome(run_file.output.url, outcome, as_json=as_json)
