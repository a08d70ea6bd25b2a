"""The render path on a device: voxels a second in float32 and bfloat16, and by how much the two differ.

    python benchmarks/rendering.py [--device cuda:0] [--model default] [--side 384 1024] [--batch 1 8]

Sections are a phantom's: speed does not depend on what they show. Of each case the second of two renderings
counts, so that kernels are chosen and memory is held. Differences are of `em`, generated planes only, against
the first row of the same size.
"""

from __future__ import annotations

from typing import Literal

import click
import numpy as np
import torch
from figures import commit, device

from vemdiffuse_pipe.comparison.in_memory import Rendered, reconstruct_in_memory
from vemdiffuse_pipe.config import ModelTable, RunTable
from vemdiffuse_pipe.phantom import phantom
from vemdiffuse_pipe.volume import Voxels

COLUMNS = (
    "side, px",
    "precision",
    "tiles at once",
    "Mvoxel/s",
    "TFLOP/s",
    "mean difference",
    "at most 1 level",
)
PRECISIONS: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")


def rendered(sections: Voxels, table: ModelTable, run: RunTable) -> Rendered:
    """The second of two renderings."""
    reconstruct_in_memory(sections, table, run)
    return reconstruct_in_memory(sections, table, run)


def row(made: Rendered, first: Voxels, ratio: int) -> tuple[str, ...]:
    """Voxels and operations a second, and how far the planes lie from those of `first`."""
    em = made.arrays["em"]
    generated = np.arange(len(em)) % ratio > 0
    difference = np.abs(em[generated].astype(np.int16) - first[generated])
    near = f"{difference.mean():.4f} levels", f"{(difference <= 1).mean():.3%}"
    return f"{em.size / made.seconds / 1e6:.3f}", f"{made.flop / made.seconds / 1e12:.2f}", *near


@click.command()
@click.option("--device", "where", default="cpu", show_default=True)
@click.option("--model", default="default", show_default=True)
@click.option("--ratio", default=5, show_default=True)
@click.option("--side", "sides", default=(384,), multiple=True, show_default=True, help="px of the sections")
@click.option("--batch", "batches", default=(1,), multiple=True, show_default=True, help="tiles at once")
@click.option("--sections", "n_sections", default=3, show_default=True)
def main(
    where: str, model: str, ratio: int, sides: tuple[int, ...], batches: tuple[int, ...], n_sections: int
) -> None:
    """Print a line for each size, precision and number of tiles at once."""
    name = torch.cuda.get_device_name(where) if where.startswith("cuda") else device()
    click.echo(f"{name}, torch {torch.__version__}, commit {commit()}\n")
    click.echo(f"| {' | '.join(COLUMNS)} |\n{'| --- ' * len(COLUMNS)}|")
    for side in sides:
        sections = phantom((n_sections, side, side), seed=0)
        cases = [(precision, batch) for precision in PRECISIONS for batch in batches]
        first: Voxels | None = None
        for precision, batch in cases:
            table = ModelTable(name=model, ratio=ratio, precision=precision)
            made = rendered(sections, table, RunTable(device=where, tile_batch=batch))
            first = made.arrays["em"] if first is None else first
            click.echo(f"| {side} | {precision} | {batch} | {' | '.join(row(made, first, ratio))} |")


if __name__ == "__main__":
    main()
