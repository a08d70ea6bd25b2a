"""vemdiffuse adapt: the default model, trained further on your own sections."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vemdiffuse_pipe.cli.options import SourceChoice, json_option, print_json, print_table, source_options

if TYPE_CHECKING:
    from vemdiffuse_pipe.training.adapt.run import Adapted


@click.command("adapt")
@click.argument("source")
@source_options
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), default=20, show_default=True, metavar="N"
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE.safetensors",
    help="The model.",
)
@click.option("--model", default="default", show_default=True, metavar="NAME", help="What to begin with.")
@click.option("--device", default="cpu", show_default=True, help="Where to train: cpu, cuda.")
@json_option
def command(
    source: str,
    choice: SourceChoice,
    minutes: float,
    output: Path,
    model: str,
    device: str,
    as_json: bool,
) -> int:
    """Adapt the default model to your own sections; rerun to resume.

    It learns from the sections alone: from those that are left out, and from gaps along y and x. A quarter of
    the columns is held back to judge it, and the best weights are kept; `selftest` tests them there.

    \b
    Examples:
      vemdiffuse adapt sections.tif --voxel-size 50 4.6 4.6 --minutes 20 -o mine.safetensors
    """
    from vemdiffuse_pipe.storage import open_source
    from vemdiffuse_pipe.training.adapt.run import adapt  # imports torch

    opened = open_source(source, **choice)
    adapted = adapt(opened, output, minutes=minutes, model=model, device=device, listener=_say)
    if adapted.outcome.stopped == "interrupted":
        raise KeyboardInterrupt
    _print(adapted, as_json)
    return 0


def _say(record: Mapping[str, object]) -> None:
    """A line on stderr, as the journal has it."""
    words = [f"{name} {value:.4g}" for name, value in record.items() if isinstance(value, float)]
    sys.stderr.write(f"step {record['step']}: {', '.join(words)}\n")


def _print(adapted: Adapted, as_json: bool) -> None:
    facts = {
        "steps": adapted.outcome.step,
        "score_before": adapted.before,
        "score_after": adapted.after,
        "checkpoint": None if adapted.checkpoint is None else str(adapted.checkpoint),
    }
    if as_json:
        print_json(facts)
        return
    kept = f"{adapted.checkpoint}"
    if adapted.checkpoint is None:
        kept = "none: no weights were better than those it began with, on sections that were held back"
    gain = adapted.after - adapted.before
    print_table({"steps": f"{adapted.outcome.step}", "gain": f"{gain:+.2f} dB", "checkpoint": kept})
