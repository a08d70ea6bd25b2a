"""vemdiffuse train: a network for your own volume."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vemdiffuse_pipe.cli.format import show_duration
from vemdiffuse_pipe.cli.options import json_option, print_json, print_table, run_file_argument
from vemdiffuse_pipe.training import settings

if TYPE_CHECKING:
    from vemdiffuse_pipe.training.loop import Stopped
    from vemdiffuse_pipe.training.run import Trained

REASONS: dict[Stopped, str] = {"patience": ", no better score for a long time", "time": ", time is up"}
"""Why a training ended before its last step; after the number of steps."""


@click.command("train")
@run_file_argument
@json_option
def command(file: Path, as_json: bool) -> int:
    """Train a network on your own volume; rerun to resume.

    FILE states the volume, what is held back for validation, and how long to train. Its folder gets the
    checkpoint that --model takes, a log, the loss curve and pictures. On several GPUs: torchrun
    --nproc-per-node 4 -m vemdiffuse_pipe train FILE.

    \b
    Examples:
      vemdiffuse train train_stack.toml
    """
    train_file = settings.load(file)
    from vemdiffuse_pipe.training.run import train  # imports torch

    trained = train(train_file, listener=_log)
    if trained.outcome.stopped == "interrupted":
        raise KeyboardInterrupt
    _print(trained, as_json)
    return 0


def _log(record: Mapping[str, object]) -> None:
    """A line on stderr, as the journal has it."""
    figures = [f"{name} {value:.4g}" for name, value in record.items() if isinstance(value, float)]
    sys.stderr.write(f"step {record['step']}: {', '.join(figures)}\n")


def _print(trained: Trained, as_json: bool) -> None:
    outcome = trained.outcome
    if as_json:
        print_json({**asdict(outcome), "folder": str(trained.folder), "checkpoint": str(trained.checkpoint)})
        return
    reason = REASONS.get(outcome.stopped, "")
    best = (
        "nothing was held back"
        if outcome.best is None
        else f"{outcome.best:.2f} dB at step {outcome.best_step}"
    )
    print_table(
        {
            "steps": f"{outcome.step}{reason}, {show_duration(outcome.elapsed_s)}",
            "best score": best,
            "checkpoint": f"{trained.checkpoint}",
            "journal": f"{trained.folder / 'log.jsonl'}",
        }
    )
