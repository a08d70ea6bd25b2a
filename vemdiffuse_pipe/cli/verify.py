"""vemdiffuse verify: check an output against its receipts."""

from __future__ import annotations

import click

from vemdiffuse_pipe.cli.format import show_count
from vemdiffuse_pipe.cli.options import json_option, print_json
from vemdiffuse_pipe.running.verify import Verification, verify

MAX_LISTED = 20


@click.command("verify")
@click.argument("output")
@click.option(
    "--rendered",
    default=3,
    show_default=True,
    type=click.IntRange(0),
    metavar="N",
    help="Places to render again.",
)
@click.option("--seed", default=0, show_default=True, metavar="N", help="Another seed, other places.")
@click.option("--repair", is_flag=True, help="Render and write wrong shards again.")
@json_option
def command(output: str, rendered: int, seed: int, repair: bool, as_json: bool) -> int:
    """Check every stored voxel of an output, and render some again.

    Every shard of every level must have a receipt, and the checksum that the receipt states. A few random
    places are rendered again and compared. Exit code 0: all is right. 1: something is not.

    \b
    Examples:
      vemdiffuse verify isotropic.zarr
      vemdiffuse verify isotropic.zarr --rendered 1 --json
      vemdiffuse verify isotropic.zarr --repair
    """
    found = verify(output, n_rendered=rendered, seed=seed, repair=repair)
    if as_json:
        print_json(facts(found))
    else:
        click.echo(format_text(output, found))
    return 0 if found.is_good else 1


def facts(found: Verification) -> dict[str, object]:
    """What was verified, for machines; boxes are in voxels of the output, zyx."""
    return {
        "is_good": found.is_good,
        "n_shards": found.n_shards,
        "n_missing": found.n_missing,
        "n_skipped": found.n_skipped,
        "wrong": [{"start": box.start, "stop": box.stop} for box in found.wrong],
        "wrong_in_levels": {
            path: [{"start": box.start, "stop": box.stop} for box in boxes]
            for path, boxes in found.wrong_in_levels.items()
        },
        "is_manifest_right": found.is_manifest_right,
        "n_rendered": found.n_rendered,
        "n_different": found.n_different,
    }


def format_text(output: str, found: Verification) -> str:
    """What was verified, for people."""
    outside = f"{show_count(found.n_skipped)} outside the mask, " if found.n_skipped else ""
    lines = [
        f"{output} {'is good' if found.is_good else 'is NOT good'}: {show_count(found.n_shards)} shards, "
        f"{outside}{show_count(found.n_missing)} missing, {show_count(len(found.wrong))} "
        f"differ from their receipt; {found.n_rendered} places rendered again, {found.n_different} differ"
    ]
    lines += [f"wrong: {box}" for box in found.wrong[:MAX_LISTED]]
    for path, boxes in found.wrong_in_levels.items():
        lines += [f"wrong in {path}: {box}" for box in boxes[:MAX_LISTED]]
    if not found.is_manifest_right:
        lines.append("handoff.json does not state what is stored; --repair writes it anew")
    return "\n".join(lines)
