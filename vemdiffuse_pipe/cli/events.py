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
@click.option("--follow", "keeps_up", is_flag=True, help="Then print new events as they happen.")
@json_option
def command(output: str, keeps_up: bool, as_json: bool) -> None:
    """Print what happened in a run, in order of time.

    Starts, ends and failures. Blocks that are done are not listed; `status` counts them. With --json, one
    object a line.

    \b
    Examples:
      vemdiffuse events isotropic.zarr
      vemdiffuse events isotropic.zarr --json
    """
    try:
        for event in follow(output) if keeps_up else events(output):
            click.echo(json.dumps(asdict(event)) if as_json else format_text(event))
    except KeyboardInterrupt:
        return


def format_text(event: LoggedEvent) -> str:
    """'2026-11-21 10:12:03 node1:4242 block failed: block 17: MissingDataError: .. (attempts 1)', in UTC."""
    try:
        when = f"{datetime.fromtimestamp(event.time, UTC):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):  # a clock that was wrong
        when = str(event.time)
    job = f" job {event.job}" if event.job else ""
    block = "" if event.block is None else f": block {event.block}"
    reason = f": {event.reason}" if event.reason else ""
    facts = ", ".join(f"{name} {value}" for name, value in event.facts.items())
    return printable(
        f"{when} {event.host}:{event.pid}{job} {event.what}{block}{reason}{facts and f' ({facts})'}"
    )
