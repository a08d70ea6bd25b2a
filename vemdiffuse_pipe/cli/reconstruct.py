"""vemdiffuse reconstruct: the main job in one line."""

from __future__ import annotations

import sys

import click

from vemdiffuse_pipe.cli.options import (
    SourceChoice,
    bad_sections_option,
    corrupt_option,
    json_option,
    missing_option,
    source_options,
)
from vemdiffuse_pipe.cli.outcome import print_outcome
from vemdiffuse_pipe.cli.progress import progress
from vemdiffuse_pipe.config import BadSections, Grid, OutputFormat, Policy, Precision
from vemdiffuse_pipe.running.reconstruct import reconstruct

Nm = tuple[float, float, float]
Zyx = tuple[int, int, int]


@click.command("reconstruct")
@click.argument("source")
@click.argument("output")
@source_options
@click.option(
    "--section-thickness",
    "section_thickness_nm",
    type=float,
    metavar="NM",
    help="What a section averages over; their distance if left out.",
)
@missing_option
@corrupt_option
@bad_sections_option
@click.option(
    "--model", default="default", show_default=True, metavar="NAME", help="One of `vemdiffuse models`."
)
@click.option(
    "--adapt",
    "adapt_minutes",
    type=click.FloatRange(0, min_open=True),
    metavar="MINUTES",
    help="Adapt the model to the volume first, as `vemdiffuse adapt` does.",
)
@click.option("--ratio", type=int, metavar="R", help="Planes a section; nearest to dz / dxy if left out.")
@click.option(
    "--grid",
    type=click.Choice(["whole", "exact"]),
    default="whole",
    show_default=True,
    help="whole keeps every section; exact puts planes as far apart as pixels.",
)
@click.option("--samples", type=int, metavar="K", help="Draws: written beside an estimate, else averaged.")
@click.option(
    "--steps", type=int, metavar="N", help="Evaluations for a sample; else as the model recommends."
)
@click.option(
    "--seed", type=int, default=0, show_default=True, metavar="N", help="Another seed, other samples."
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="auto is bfloat16 on a GPU, which is faster there, and float32 on a CPU.",
)
@click.option(
    "--block-shape",
    nargs=3,
    type=int,
    metavar="Z Y X",
    help="Voxels in a block, the unit of work: whole shards.",
)
@click.option("--workers", type=int, default=1, show_default=True, metavar="N", help="Worker processes.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="cpu, cuda or another of torch; auto: CUDA where there is a GPU, else the CPU.",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["ome-zarr-0.5", "ome-zarr-0.4", "n5", "precomputed"]),
    default="ome-zarr-0.5",
    show_default=True,
    help="Of the images in the output.",
)
@json_option
def command(
    source: str,
    output: str,
    choice: SourceChoice,
    section_thickness_nm: float | None,
    missing: Policy,
    corrupt: Policy,
    bad_sections: BadSections,
    model: str,
    adapt_minutes: float | None,
    ratio: int | None,
    grid: Grid,
    samples: int | None,
    steps: int | None,
    seed: int,
    precision: Precision,
    block_shape: Zyx | None,
    workers: int,
    device: str,
    output_format: OutputFormat,
    as_json: bool,
) -> int:
    """Make a volume isotropic, without writing a run file first.

    The run file is written beside the output. Rerun to resume. Exit code 0: complete. 1: not.

    \b
    Examples:
      vemdiffuse reconstruct stack.tif isotropic.zarr --voxel-size 50 4.6 4.6
    """
    model = _adapted(source, output, choice, model, adapt_minutes) if adapt_minutes else model
    with progress(sys.stderr) as listener:
        outcome = reconstruct(
            source,
            output,
            **choice,
            section_thickness_nm=section_thickness_nm,
            missing=missing,
            corrupt=corrupt,
            bad_sections=bad_sections,
            model=model,
            ratio=ratio,
            grid=grid,
            samples=samples,
            steps=steps,
            seed=seed,
            precision=precision,
            block_shape=block_shape,
            workers=workers,
            device=device,
            output_format=output_format,
            listener=listener,
        )
    return print_outcome(output, outcome, as_json=as_json)


def _adapted(source: str, output: str, choice: SourceChoice, model: str, minutes: float) -> str:
    """The model adapted to the source, beside the output; the model itself where that is no better."""
    from vemdiffuse_pipe.storage import open_source
    from vemdiffuse_pipe.training.adapt.run import adapt, model_beside  # imports torch

    adapted = adapt(open_source(source, **choice), model_beside(output), minutes=minutes, model=model)
    if adapted.outcome.stopped == "interrupted":
        raise KeyboardInterrupt
    return model if adapted.checkpoint is None else str(adapted.checkpoint)
