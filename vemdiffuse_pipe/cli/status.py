"""vemdiffuse status: how far a run is."""

from __future__ import annotations

from dataclasses import asdict

import click

from vemdiffuse_pipe.cli.options import json_option, print_json, print_table
from vemdiffuse_pipe.cli.outcome import listed, set_aside_facts
from vemdiffuse_pipe.cli.words import show_bytes, show_count, show_duration
from vemdiffuse_pipe.running.status import Status, status


@click.command("status")
@click.argument("output")
@json_option
def command(output: str, as_json: bool) -> None:
    """Print how far a run is, while it runs or after.

    \b
    Examples:
      vemdiffuse status isotropic.zarr
      vemdiffuse status isotropic.zarr --json
    """
    found = status(output)
    if as_json:
        print_json(facts(found))
        return
    print_table(rows(found))
    for line in listed(found.set_aside):
        click.echo(line)


def facts(found: Status) -> dict[str, object]:
    """The status for machines."""
    return {**asdict(found), "set_aside": [set_aside_facts(block) for block in found.set_aside]}


def rows(found: Status) -> dict[str, str]:
    """The status for people, as rows of a table."""
    share = found.voxels_done / found.voxels_total if found.voxels_total else 1.0
    stages = ", ".join(f"{stage} {show_duration(s)}" for stage, s in found.seconds.items())
    n_filled = found.n_voxels_filled
    filled = f", {show_count(n_filled)} voxels that do not exist were filled" if n_filled else ""
    n_skipped = found.n_blocks_skipped
    outside = f", {show_count(n_skipped)} outside the mask" if n_skipped else ""
    return {
        "output": f"{found.output} (run {found.digest})",
        "blocks": f"{show_count(found.n_blocks_done)} of {show_count(found.n_blocks)} done, "
        f"{show_count(len(found.set_aside))} set aside{outside}",
        "voxels": f"{show_count(found.voxels_done)} of {show_count(found.voxels_total)} ({share:.1%}), "
        f"{show_count(found.voxels_per_s)} voxels/s",
        "spent": f"{stages or 'nothing yet'}, {show_count(found.n_attempts_failed)} attempts failed",
        "reading": f"{show_bytes(found.bytes_fetched)} fetched for {show_bytes(found.bytes_read)} needed, "
        f"{show_count(found.n_requests_failed)} requests asked again" + filled,
        "memory": f"{show_bytes(found.peak_bytes)} of RAM at most",
    }
