"""vemdiffuse retry: retry the blocks that failed."""

from __future__ import annotations

import sys

import click

from vemdiffuse_pipe.cli.options import json_option
from vemdiffuse_pipe.cli.outcome import print_outcome
from vemdiffuse_pipe.cli.progress import progress
from vemdiffuse_pipe.running.reconstruct import retry


@click.command("retry")
@click.argument("output")
@json_option
def command(output: str, as_json: bool) -> int:
    """Retry the blocks of an output that failed.

    \b
    Examples:
      vemdiffuse retry isotropic.zarr
    """
    with progress(sys.stderr) as listener:
        outcome = retry(output, listener=listener)
    return print_outcome(output, outcome, as_json=as_json)
