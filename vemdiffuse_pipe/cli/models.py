"""vemdiffuse models: list, show, import and export models."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from textwrap import fill
from typing import get_args

import click

from vemdiffuse_pipe.cli.options import json_option, print_json, print_table
from vemdiffuse_pipe.config import Task
from vemdiffuse_pipe.evaluation.table import aligned
from vemdiffuse_pipe.models.card import ModelCard, find_card, shipped_models

HEADINGS = ("model", "kind", "ratio", "samples", "FLOP/voxel")
PLANES = 4  # of the gap that the costs are for: r = 5


@click.group("models", invoke_without_command=True)
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List models; show, import or export one.

    \b
    Examples:
      vemdiffuse models
      vemdiffuse models show default
      vemdiffuse models --json
      vemdiffuse models export fib25-2026-11 --bioimageio default_bioimageio.zip
    """
    if context.invoked_subcommand is not None:
        return
    cards = {name: find_card(name) for name in shipped_models()}
    if as_json:
        print_json({name: asdict(card) for name, card in cards.items()})
    else:
        click.echo(aligned([HEADINGS, *(_cells(name, card) for name, card in cards.items())]))


@command.command("show")
@click.argument("name")
@click.option(
    "--task",
    type=click.Choice(get_args(Task)),
    default="isotropic",
    show_default=True,
    help="What the model does.",
)
@json_option
def show(name: str, task: Task, as_json: bool) -> None:
    """Print the card of a model: what it is, what it was trained on, what was measured of it.

    NAME is a model that `vemdiffuse models` lists, or the path of a checkpoint.

    \b
    Examples:
      vemdiffuse models show default
      vemdiffuse models show linear --json
    """
    card = find_card(name, task)
    if as_json:
        print_json(asdict(card))
    else:
        print_table({name: fill(text, 90) for name, text in card_rows(card).items()})


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
        click.echo(f"{output} is written:")
        print_table({name: fill(text, 90) for name, text in card_rows(card).items()})


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
      vemdiffuse models export fib25-2026-11 --bioimageio default_bioimageio.zip
    """
    from vemdiffuse_pipe.exchange.bioimageio import export_bioimageio  # imports torch

    click.echo(export_bioimageio(name, target, ratio=ratio))


def card_rows(card: ModelCard) -> dict[str, str]:
    """The card for people, as rows of a table."""
    return {
        "name": card.name,
        "kind": f"{card.kind}{', draws samples' if card.is_stochastic else ', one answer'}",
        "task": card.task,
        "ratio": _ratio(card),
        "samples": _samples(card),
        "tiles": _tiles(card),
        "trained on": card.trained_on or "-",
        "training": card.training or "-",
        "voxels, nm": card.voxel_size_nm or "-",
        "measured": card.figures or "-",
        "licence": card.licence or "-",
        "sha256": card.sha256,
    }


def _cells(name: str, card: ModelCard) -> tuple[str, ...]:
    cost = card.flop_per_pixel(PLANES) / (PLANES + 1) * card.samples * card.steps
    return (name, card.kind, _ratio(card), _samples(card), f"{cost:.2g}")


def _ratio(card: ModelCard) -> str:
    if card.max_ratio >= 2**31:
        return "any"
    return str(card.min_ratio) if card.min_ratio == card.max_ratio else f"{card.min_ratio}-{card.max_ratio}"


def _samples(card: ModelCard) -> str:
    """'2 x 8 evaluations', unless a run asks for others."""
    if card.is_stochastic and card.samples * card.steps > 1:
        return f"{card.samples} x {card.steps} evaluations"
    return "one pass"


def _tiles(card: ModelCard) -> str:
    size = f"{card.tile_px} px only" if card.tile_px else "any size"
    return f"{size}; looks {card.context_px} px around a pixel"
