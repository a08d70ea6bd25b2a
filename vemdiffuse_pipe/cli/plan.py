"""vemdiffuse plan: what a run would do and need."""

from __future__ import annotations

from pathlib import Path

import click

from vemdiffuse_pipe import config
from vemdiffuse_pipe.cli.options import json_option, run_file_argument
from vemdiffuse_pipe.cli.plan_report import print_plan
from vemdiffuse_pipe.running.mask import open_run_mask
from vemdiffuse_pipe.running.opening import prepare


@click.command("plan")
@run_file_argument
@click.option("--time", "with_time", is_flag=True, help="Also estimate the time, by rendering one tile.")
@json_option
def command(file: Path, with_time: bool, as_json: bool) -> None:
    """Print what a run would do and need; nothing is computed.

    \b
    Examples:
      vemdiffuse plan run.toml
      vemdiffuse plan run.toml --time
      vemdiffuse plan run.toml --json
    """
    _, plan = prepare(config.load(file))
    open_run_mask(plan)  # to see that it can be used
    print_plan(plan, with_time=with_time, as_json=as_json)
