"""vemdiffuse status: how far a run is."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from vemdiffuse_pipe.cli.format import printable, show_bytes, show_count, show_duration
from vemdiffuse_pipe.cli.options import json_option, print_json, table_lines
from vemdiffuse_pipe.cli.outcome import failed_block_facts
from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.monitor.status import HostRate, Reason, Status, Watched, status

SECONDS_BETWEEN_DRAWINGS = 5.0
SECONDS_BETWEEN_LINES = 30.0
MAX_HOSTS = 20


@click.command("status")
@click.argument("output")
@click.option("--watch", is_flag=True, help="Refresh until every block is done or failed.")
@click.option(
    "--map",
    "picture",
    metavar="PNG",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the state of the blocks.",
)
@json_option
def command(output: str, watch: bool, picture: Path | None, as_json: bool) -> int:
    """Print how far a run is, while it runs or after.

    Running blocks are those that a process named in its last heartbeat, seconds ago.

    \b
    Examples:
      vemdiffuse status isotropic.zarr
      vemdiffuse status isotropic.zarr --watch
      vemdiffuse status isotropic.zarr --map blocks.png
      vemdiffuse status isotropic.zarr --json
    """
    if watch:
        return _watch(output, picture, as_json)
    found = status(output)
    if as_json:
        print_json(facts(found))
    else:
        click.echo("\n".join(lines(found)))
    _draw(output, picture)
    return 0


def _watch(output: str, picture: Path | None, as_json: bool) -> int:
    """Print the status until the run is finished, or interrupted. 0 where it is complete."""
    try:
        for found in _refreshed(output, SECONDS_BETWEEN_DRAWINGS if _redraws(as_json) else None):
            if as_json:
                click.echo(json.dumps(facts(found)))
            elif _redraws(as_json):
                click.clear()
                click.echo("\n".join(lines(found)))
            else:
                click.echo(one_line(found))
            sys.stdout.flush()
            _draw(output, picture)
    except KeyboardInterrupt:
        return 0
    return 0 if found.is_complete else 1


def _redraws(as_json: bool) -> bool:
    return sys.stdout.isatty() and not as_json


def _refreshed(output: str, every_s: float | None) -> Iterator[Status]:
    """The status until the run is finished; a slow one is followed by as long a pause."""
    watched = Watched(output)
    while True:
        began = time.monotonic()
        found = watched.status()
        yield found
        if found.is_finished:
            return
        time.sleep(max(every_s or SECONDS_BETWEEN_LINES, time.monotonic() - began))


def _draw(output: str, picture: Path | None) -> None:
    if picture is not None:
        from vemdiffuse_pipe.monitor.block_map import block_map

        image = block_map(output)
        try:
            image.save(picture, format="PNG")
        except OSError as error:
            raise ConfigError(
                f"the map cannot be written to {picture} ({error.strerror or type(error).__name__}); "
                "choose another file"
            ) from None


def facts(found: Status) -> dict[str, object]:
    """The status for machines."""
    reasons = [
        {"kind": r.kind, "n_blocks": r.n_blocks, "example": failed_block_facts(r.example)}
        for r in found.reasons
    ]
    blocks = [failed_block_facts(block) for block in found.failed_blocks]
    return {**asdict(found), "failed_blocks": blocks, "reasons": reasons}


def lines(found: Status) -> list[str]:
    """The status for people."""
    return [*table_lines(rows(found)), *(_reason(reason) for reason in found.reasons)]


def one_line(found: Status) -> str:
    """The status in a log."""
    return (
        f"{show_count(found.n_blocks_done)} of {show_count(found.n_blocks)} blocks done, "
        f"{_running(found)}, {show_count(len(found.failed_blocks))} failed, "
        f"{show_count(found.voxels_per_s_now)} voxels/s, {_left(found)}"
    )


def rows(found: Status) -> dict[str, str]:
    """The status as rows of a table."""
    share = found.voxels_done / found.voxels_total if found.voxels_total else 1.0
    stages = ", ".join(f"{stage} {show_duration(s)}" for stage, s in found.seconds.items())
    n_filled = found.n_voxels_filled
    filled = f", {show_count(n_filled)} missing voxels filled" if n_filled else ""
    n_skipped = found.n_blocks_skipped
    outside = f", {show_count(n_skipped)} outside the mask" if n_skipped else ""
    gpu = f", {show_bytes(found.peak_gpu_bytes)} of GPU memory" if found.peak_gpu_bytes else ""
    table = {
        "output": f"{found.output} (run {found.digest})",
        "run": _identity(found),
        "blocks": f"{show_count(found.n_blocks_done)} of {show_count(found.n_blocks)} done, "
        f"{show_count(len(found.failed_blocks))} failed, {_running(found)}{outside}",
        "voxels": f"{show_count(found.voxels_done)} of {show_count(found.voxels_total)} ({share:.1%})",
        "speed": f"{show_count(found.voxels_per_s_now)} voxels/s now, {show_count(found.voxels_per_s)} on "
        f"average; {_left(found)}",
        "spent": f"{stages or 'nothing yet'}, {show_count(found.n_attempts_failed)} attempts failed",
        "reading": f"{show_bytes(found.bytes_fetched)} fetched for {show_bytes(found.bytes_read)} needed, "
        f"{show_count(found.n_requests_failed)} requests retried" + filled,
        "memory": f"{show_bytes(found.peak_bytes)} of RAM at most{gpu}",
    }
    if found.hosts:
        table["hosts"] = "\n".join(_hosts(found.hosts))
    if found.slowest:
        table["slowest"] = ", ".join(
            f"block {block.block_index} {show_duration(block.seconds)}" for block in found.slowest
        )
    return {name: "\n".join(map(printable, value.split("\n"))) for name, value in table.items()}


def _identity(found: Status) -> str:
    """The run by name, a few fields a line; what was left open is left out."""
    hidden = {"ratio"} if "task" in found.identity else set()  # where no gaps are filled, it is 1
    said = {name: value for name, value in found.identity.items() if name not in hidden}
    named = [f"{name} {_short(value)}" for name, value in said.items() if value not in (None, [])]
    shown = [", ".join(named[i : i + 4]) for i in range(0, len(named), 4)]
    return "\n".join(shown)


def _running(found: Status) -> str:
    """How many blocks are running; processes, where blocks are too short for a heartbeat to name them."""
    n = len(found.processes)
    if found.running or not n:
        return f"{show_count(len(found.running))} running"
    return f"{show_count(n)} process{'es' if n > 1 else ''} running, on blocks too short to be listed"


def _short(value: object) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _hosts(hosts: tuple[HostRate, ...]) -> list[str]:
    shown = [
        f"{host.host} ({', '.join(host.devices) or 'nothing yet'}): {show_count(host.n_processes)} running, "
        f"{show_count(host.n_blocks_done)} blocks, {show_count(host.voxels_per_s_now)} voxels/s now"
        for host in hosts[:MAX_HOSTS]
    ]
    more = len(hosts) - MAX_HOSTS
    return [*shown, f"and {more} more; --json lists them all"] if more > 0 else shown


def _reason(reason: Reason) -> str:
    n, block = reason.n_blocks, reason.example
    many = f"{show_count(n)} blocks" if n > 1 else "1 block"
    return printable(
        f"{many} failed with {reason.kind}, {'the first ' if n > 1 else ''}block {block.block_index} "
        f"{block.output_box} after {block.n_attempts} attempts: {block.reason}"
    )


def _left(found: Status) -> str:
    if found.is_complete:
        return "complete"
    if found.is_finished:
        return "finished, but for failed blocks"
    if found.seconds_left is None:
        return "no process is running"
    return f"{show_duration(found.seconds_left)} left"
