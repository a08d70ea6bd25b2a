"""vemdiffuse schema: the JSON schemas of what is handed on."""

from __future__ import annotations

import click

from vemdiffuse_pipe.cli.options import print_json


@click.command("schema")
@click.argument("name", type=click.Choice(["handoff"]))
def command(name: str) -> int:
    """Print the JSON schema of handoff.json.

    \b
    Examples:
      vemdiffuse schema handoff
    """
    from vemdiffuse_pipe.output.manifest import schema

    print_json(schema())
    return 0
