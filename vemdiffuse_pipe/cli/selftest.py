"""vemdiffuse selftest: which model is best on this very volume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vemdiffuse_pipe.cli.options import SourceChoice, json_option, print_json, source_options

if TYPE_CHECKING:
    from vemdiffuse_pipe.evaluation.agreement import Agreement
    from vemdiffuse_pipe.holdout.run import SelfTest

COLUMNS = ("PSNR", "SSIM", "FSIM", "PSNR*", "SSIM*", "FSIM*", "agrees to", "HF-y", "HF-x", "planes", "s")


@click.command("selftest")
@click.argument("source")
@source_options
@click.option(
    "--models",
    default="linear,cubic,flow,default",
    show_default=True,
    metavar="A,B,...",
    help="Names of `vemdiffuse models`, and paths of checkpoints.",
)
@click.option(
    "--places",
    type=click.IntRange(1, 1000),
    default=8,
    show_default=True,
    metavar="N",
    help="Windows of 256 px that are looked at.",
)
@click.option("--picture", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw the first place.")
@click.option("--device", default="cpu", show_default=True, help="Where models run: cpu, cuda:0.")
@json_option
def command(
    source: str,
    choice: SourceChoice,
    models: str,
    places: int,
    picture: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Leave sections out and say which model makes them best.

    No truth is needed: every second section is left out, and what each model makes of the others is compared
    with it, at a few places drawn over the whole volume. It takes minutes, whatever the volume's size.

    \b
    Examples:
      vemdiffuse selftest stack.tif --voxel-size 50 4.6 4.6 --models linear,cubic,flow
    """
    from vemdiffuse_pipe.holdout.run import selftest  # imports torch
    from vemdiffuse_pipe.storage import open_source

    opened = open_source(source, **choice)
    names = [name.strip() for name in models.split(",") if name.strip()]
    test = selftest(
        opened,
        names,
        n_places=places,
        device=device,
        on_model=lambda name: click.echo(f"testing {name}", err=True),
    )
    if picture is not None:
        _draw(test, picture)
    if as_json:
        print_json(test.as_dict())
        return
    pixel_nm = float(opened.spec.frame.voxel_size_nm[2])
    click.echo(format_table(test, pixel_nm))
    click.echo(f"\n{test.verdict.sentence[0].upper()}{test.verdict.sentence[1:]}")


def format_table(test: SelfTest, pixel_nm: float) -> str:
    """A line for each answer of each model, and what the columns are."""
    from vemdiffuse_pipe.evaluation.table import aligned

    rows: list[tuple[str, ...]] = [("", *COLUMNS)]
    for name, scores in test.scores.items():
        cost = (str(scores.ratio - 1), f"{scores.seconds:.0f}")
        rows.append((name, *_cells(scores.estimate, pixel_nm), *cost))
        if scores.sample is not None:
            rows.append((f"{name}, one sample", *_cells(scores.sample, pixel_nm), "", ""))
    y, x = test.window_px
    return (
        f"{len(test.places)} sections left out, windows of {y} x {x} px; * after a low-pass of 4 px: "
        f"structure without noise\n\n{aligned(rows)}"
    )


def _cells(found: Agreement, pixel_nm: float) -> tuple[str, ...]:
    from vemdiffuse_pipe.evaluation.correlation import resolution_nm

    return (
        f"{found.psnr:.2f}",
        f"{found.ssim:.3f}",
        f"{found.fsim:.4f}",
        f"{found.psnr_low:.2f}",
        f"{found.ssim_low:.3f}",
        f"{found.fsim_low:.4f}",
        f"{resolution_nm(found.frc, pixel_nm):.0f} nm",
        f"{found.hf_y:.2f}",
        f"{found.hf_x:.2f}",
    )


def _draw(test: SelfTest, file: Path) -> None:
    from vemdiffuse_pipe.evaluation.picture import picture
    from vemdiffuse_pipe.storage.faults import writing

    with writing(str(file)):
        picture(test.panels, scale=1).save(file)
