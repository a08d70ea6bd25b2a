"""vemdiffuse models: what can fill gaps, and models for other programs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from vemdiffuse_pipe.cli.options import json_option, print_json, print_table
from vemdiffuse_pipe.models.card import ModelCard, find_card, shipped_models


@click.group("models", invoke_without_command=True)
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the models that can fill gaps.

    \b
    Examples:
      vemdiffuse models
      vemdiffuse models --json
      vemdiffuse models export default --bioimageio default_bioimageio.zip
    """
    if context.invoked_subcommand:
        return
    cards = {name: find_card(name) for name in shipped_models()}
    if as_json:
        print_json({name: asdict(card) for name, card in cards.items()})
    else:
        print_table({name: _in_words(card) for name, card in cards.items()})


@command.command("export")
@click.argument("name")
@click.option(
    "--bioimageio",
    "target",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER_OR_ZIP",
    help="Where the package goes: a folder that is not there yet, or a .zip file.",
)
@click.option("--ratio", type=int, default=5, show_default=True, metavar="R", help="Of the gaps it fills.")
def export(name: str, target: Path, ratio: int) -> None:
    """Write a model as a package of the bioimage.io model zoo.

    NAME is a model of ours or the path of a checkpoint.

    \b
    Examples:
      vemdiffuse models export default --bioimageio default_bioimageio.zip
    """
    from vemdiffuse_pipe.running.export import export_bioimageio  # imports torch

    click.echo(export_bioimageio(name, target, ratio=ratio))


def _in_words(card: ModelCard) -> str:
    if not card.is_stochastic:
        return f"{card.kind} along z, any ratio; no uncertainty"
    return (
        f"{card.kind} diffusion network, ratio {card.min_ratio} to {card.max_ratio}; "
        f"{card.samples} samples of {card.steps} evaluations unless you say otherwise\n"
        f"trained on: {card.trained_on or 'not stated'}\n"
        f"voxels of training, nm: {card.voxel_size_nm or 'not stated'}\n"
        f"licence: {card.licence or 'not stated'}"
    )
