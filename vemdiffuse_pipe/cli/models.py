"""vemdiffuse models: what can fill gaps, what published checkpoints become, and models for other programs."""

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
    if context.invoked_subcommand is not None:
        return
    cards = {name: find_card(name) for name in shipped_models()}
    if as_json:
        print_json({name: asdict(card) for name, card in cards.items()})
    else:
        print_table({name: _in_words(card) for name, card in cards.items()})


@command.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(["udim", "cddpm"]), default="udim", show_default=True)
@click.option(
    "--ratio", type=click.IntRange(2, 1024), metavar="R", help="What it was trained at; udim needs it."
)
@click.option(
    "--ema/--raw", "averaged", default=True, show_default=True, help="Which state, where the file holds both."
)
@click.option("--output", type=click.Path(path_type=Path), help="FILE.safetensors, here, if left out.")
@json_option
def import_(
    file: Path, kind: str, ratio: int | None, averaged: bool, output: Path | None, as_json: bool
) -> None:
    """Make a model of FILE, a checkpoint that the authors of vEMDiffuse or their program wrote.

    udim is the network for volumes; cddpm is the one for images, given what lies between two sections.
    Nothing in FILE is run. The model is then named by its path: name = "FILE.safetensors" in [model].

    \b
    Examples:
      vemdiffuse models import 1200_Network_ema.pth --ratio 6
      vemdiffuse models import image.pth --kind cddpm --raw --output image.safetensors
    """
    from vemdiffuse_pipe.exchange.published import import_checkpoint  # imports torch

    output = output or Path(f"{file.stem}.safetensors")
    card = import_checkpoint(file, output, kind, ratio, averaged=averaged)
    if as_json:
        print_json(asdict(card))
    else:
        print_table({str(output): _in_words(card)})


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
    from vemdiffuse_pipe.exchange.bioimageio import export_bioimageio  # imports torch

    click.echo(export_bioimageio(name, target, ratio=ratio))


def _in_words(card: ModelCard) -> str:
    if card.kind == "interpolation":
        return f"{card.kind} along z, any ratio; no uncertainty"
    ratios = f"ratio {card.min_ratio} to {card.max_ratio}" if card.min_ratio < card.max_ratio else ""
    how = (
        f"{card.samples} samples of {card.steps} evaluations unless you say otherwise"
        if card.is_stochastic and card.steps > 1
        else "one pass, no uncertainty"
    )
    return (
        f"{card.kind} {'diffusion ' if card.is_stochastic else ''}network, "
        f"{ratios or f'ratio {card.min_ratio} alone'}; {how}\n"
        f"trained on: {card.trained_on or 'not stated'}\n"
        f"training: {card.training or 'not stated'}\n"
        f"voxels of training, nm: {card.voxel_size_nm or 'not stated'}\n"
        f"measured: {card.figures or 'not stated'}\n"
        f"licence: {card.licence or 'not stated'}"
    )
