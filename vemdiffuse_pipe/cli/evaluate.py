"""vemdiffuse evaluate: a reconstruction compared with ground truth."""

from __future__ import annotations

from dataclasses import asdict

import click

from vemdiffuse_pipe.cli.options import json_option, print_json, window_option
from vemdiffuse_pipe.comparison.stored import Evaluation, evaluate
from vemdiffuse_pipe.evaluation import Report, render_table
from vemdiffuse_pipe.evaluation.compare import ORDERS, verdict


@click.command("evaluate")
@click.argument("prediction")
@click.argument("truth")
@click.option("--ratio", type=click.IntRange(2), metavar="R", help="Every R-th plane is a section.")
@click.option("--every-plane", is_flag=True, help="No plane is a section: all count. For restored volumes.")
@window_option
@json_option
def command(
    prediction: str,
    truth: str,
    ratio: int | None,
    every_plane: bool,
    window: tuple[float, float] | None,
    as_json: bool,
) -> None:
    """Compare a reconstruction with ground truth.

    PREDICTION is an output of vemdiffuse, which states its generated planes, or any volume with --ratio. Only
    generated planes count, and restored ones. A larger TRUTH is cut to the prediction, from its first voxel.
    Linear and cubic interpolation of the same sections stand beside the prediction.

    \b
    Examples:
      vemdiffuse evaluate isotropic.zarr truth.tif
      vemdiffuse evaluate isotropic.zarr/em truth.tif --ratio 11 --json
    """
    found = evaluate(prediction, truth, ratio=ratio, every_plane=every_plane, window=window)
    for note in found.notes:
        click.echo(note, err=True)
    if as_json:
        print_json(_facts(found))
        return
    print_reports(found.reports)
    for name, period in found.resolutions.items():
        click.echo(
            f"{name} agrees with the truth down to {period.fsc_nm:.1f} nm (FSC 1/7), "
            f"{period.fsc50_nm:.1f} (1/2)"
        )


def print_reports(reports: dict[str, Report]) -> None:
    """Print the table of the reports and a line for each metric: which interpolation is beaten."""
    click.echo(render_table(reports))
    if ORDERS.keys() <= reports.keys():
        click.echo()
        for line in verdict(reports):
            click.echo(line)


def _facts(found: Evaluation) -> dict[str, object]:
    return {
        name: {**report.as_dict(), **(asdict(found.resolutions[name]) if found.resolutions else {})}
        for name, report in found.reports.items()
    }
