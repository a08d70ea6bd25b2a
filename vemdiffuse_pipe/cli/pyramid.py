"""vemdiffuse pyramid: coarser levels of an output."""

from __future__ import annotations

import sys

import click

from vemdiffuse_pipe.cli.options import json_option, part_runner, part_runner_options, print_json


@click.command("pyramid")
@click.argument("output")
@click.option(
    "--levels", "n_levels", type=click.IntRange(1, 32), metavar="N", help="Levels, the finest included."
)
@part_runner_options
@json_option
def command(output: str, n_levels: int | None, part: str | None, workers: int, as_json: bool) -> int:
    """Make coarser levels of an output.

    With them a viewer can show it as a whole. Rerun to resume.

    Each level halves z, y and x, until a section fits one chunk. Grey levels are averaged; of uncertainty the
    maximum is kept, of labels the most frequent. A level appears once it is complete.

    \b
    Examples:
      vemdiffuse pyramid isotropic.zarr
      vemdiffuse pyramid isotropic.zarr --levels 3
      vemdiffuse pyramid isotropic.zarr --part 1/4
    """
    from vemdiffuse_pipe.cli.progress import progress
    from vemdiffuse_pipe.running.levels.pyramid import pyramid

    with progress(sys.stderr) as listener:
        made = pyramid(output, n_levels=n_levels, runner=part_runner(part, workers), listener=listener)
    if as_json:
        print_json({"levels": dict(made.levels), "exit_code": made.exit_code})
    else:
        levels = ", ".join(f"{name} {n}" for name, n in made.levels.items())
        click.echo(f"{output}: complete levels: {levels}")
    return made.exit_code
