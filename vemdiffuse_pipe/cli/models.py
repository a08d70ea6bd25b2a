"""vemdiffuse models: what can fill gaps."""

from __future__ import annotations

from dataclasses import asdict

import click

from vemdiffuse_pipe.cli.options import json_option, print_json, print_table
from vemdiffuse_pipe.models.card import ModelCard, find_card, shipped_models


@click.command("models")
@json_option
def command(as_json: bool) -> None:
    """List the models that can fill gaps.

    \b
    Examples:
      vemdiffuse models
      vemdiffuse models --json
    """
    cards = {name: find_card(name) for name in shipped_models()}
    if as_json:
        print_json({name: asdict(card) for name, card in cards.items()})
    else:
        print_table({name: _in_words(card) for name, card in cards.items()})


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
