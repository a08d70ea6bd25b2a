"""vemdiffuse events: what happened in a run."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime

import click

from vemdiffuse_pipe.cli.format import printable
from vemdiffuse_pipe.cli.options import json_option
from vemdiffuse_pipe.monitor.event_log import LoggedEvent, events, follow


@click.command("events")
@click.argument("output")
@click.option("--follow", "go_on", is_flag=True, help="Go on with what happens from now on.")
@json_option
def command(output: str, go_on: bool, as_json: bool) -> None:
    """Print what happened in a run, in order of time.

    Its starts and ends, and all that failed. Blocks that were done are no events; `status` counts them. With
    --json, one object a line.

    \b
    Examples:
      vemdiffuse events isotropic.zarr
      vemdiffuse events isotropic.zarr --json
    """
    try:
        for told in follow(output) if go_on else events(output):
            click.echo(json.dumps(asdict(told)) if as_json else format_text(told))
    except KeyboardInterrupt:
        return


def format_text(told: LoggedEvent) -> str:
    """'2026-11-21 10:12:03 node1:4242 set aside: block 17: MissingDataError: .. (attempts 1)', in UTC."""
    try:
        when = f"{datetime.fromtimestamp(told.time, UTC):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):  # a clock that was wrong
        when = str(told.time)
    job = f" job {told.job}" if told.job else ""
    block = "" if told.block is None else f": block {told.block}"
    reason = f": {told.reason}" if told.reason else ""
    facts = ", ".join(f"{name} {value}" for name, value in told.facts.items())
    return printable(
        f"{when} {told.host}:{told.pid}{job} {told.what}{block}{reason}{facts and f' ({facts})'}"
    )
