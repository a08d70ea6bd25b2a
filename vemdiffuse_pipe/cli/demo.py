"""vemdiffuse demo: the full pipeline on a synthetic volume."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from vemdiffuse_pipe.cli.evaluate import print_reports
from vemdiffuse_pipe.cli.progress import progress
from vemdiffuse_pipe.demo import demo


@click.command("demo")
@click.argument("folder", type=click.Path(path_type=Path), default="demo")
@click.option(
    "--model", default="default", show_default=True, metavar="NAME", help="One of `vemdiffuse models`."
)
def command(folder: Path, model: str) -> None:
    """Run the full pipeline on a synthetic volume.

    Makes a phantom of nervous tissue in FOLDER, drops four planes of five, fills the gaps, and compares the
    result with the phantom and with interpolation. FOLDER/views.png shows it. About a minute, under 2 GB.

    \b
    Examples:
      vemdiffuse demo
      vemdiffuse demo elsewhere --model linear
    """
    with progress(sys.stderr) as listener:
        made = demo(folder, model=model, listener=listener)
    print_reports(made.reports)
    click.echo(f"\n{folder / 'isotropic.zarr'} is the result; {made.picture} shows it")
