"""vemdiffuse evaluate: a reconstruction held against the truth."""

from __future__ import annotations

from math import prod

import click
import numpy as np

from vemdiffuse_pipe.cli.format import show_shape
from vemdiffuse_pipe.cli.options import json_option, print_json, window_option
from vemdiffuse_pipe.errors import ConfigError, OutputError, SourceError
from vemdiffuse_pipe.evaluation import Report, evaluate, render_table
from vemdiffuse_pipe.evaluation.compare import ORDERS, verdict, with_interpolation
from vemdiffuse_pipe.evaluation.correlation import resolution_nm
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.plane_groups import Provenance
from vemdiffuse_pipe.storage import open_sink, open_source, source_address
from vemdiffuse_pipe.storage.grey import Window
from vemdiffuse_pipe.storage.source import find_volume
from vemdiffuse_pipe.volume import Source, Voxels

UNSTATED_NM = 1  # what the voxels of a volume that states no size are opened with
MAX_VOXELS = 10**9  # both volumes are held in memory, and metrics work in floating point


@click.command("evaluate")
@click.argument("prediction")
@click.argument("truth")
@click.option("--ratio", type=click.IntRange(2), metavar="R", help="Every R-th plane is a section.")
@click.option("--every-plane", is_flag=True, help="No plane is a section: all count, as where restored.")
@window_option
@json_option
def command(
    prediction: str, truth: str, ratio: int | None, every_plane: bool, window: Window | None, as_json: bool
) -> None:
    """Hold a reconstruction against the truth.

    PREDICTION is an output of vemdiffuse, which knows its generated planes, or any volume with --ratio.
    Only generated planes count, and restored ones. TRUTH is cut to the prediction where it is larger, from
    its first voxel. Linear and cubic interpolation of the same sections stand beside it.

    \b
    Examples:
      vemdiffuse evaluate isotropic.zarr truth.tif
      vemdiffuse evaluate isotropic.zarr/em truth.tif --ratio 11 --json
    """
    source, provenance, is_whole = _opened(prediction, window)
    measured = [] if every_plane else _measured(prediction, source, provenance, ratio)
    ours = _read(source, source.spec.shape)
    true = _read(_opened(truth, window)[0], ours.shape)
    if not np.array_equal(ours[measured], true[measured]):
        click.echo("the measured planes differ from those of the truth: is it the same volume?", err=True)
    reports = _reports(ours, true, measured, is_whole or ratio is not None)
    if not (is_whole or every_plane or ratio):
        click.echo(
            "on an exact grid sections lie between planes: interpolation is not shown beside", err=True
        )
    resolutions = _resolutions(reports, float(source.spec.frame.voxel_size_nm[2]))
    if as_json:
        print_json({name: report.as_dict() | resolutions[name] for name, report in reports.items()})
    else:
        print_reports(reports)
        for name, (seventh, half) in ((name, r.values()) for name, r in resolutions.items() if r):
            click.echo(f"{name} agrees with the truth down to {seventh:.1f} nm (FSC 1/7), {half:.1f} (1/2)")


def print_reports(reports: dict[str, Report]) -> None:
    """Print the table of the reports and, in words, what beats interpolation."""
    click.echo(render_table(reports))
    if ORDERS.keys() <= reports.keys():
        click.echo()
        for line in verdict(reports):
            click.echo(line)


def _opened(url: str, window: Window | None) -> tuple[Source, Voxels | None, bool]:
    """The volume at `url`; of an output of ours its image `em`, and the provenance of its planes.

    Last, whether all its sections are planes: on an exact grid most are not, and are not there to be
    interpolated between.
    """
    try:
        sink = open_sink(url)
    except OutputError:
        return open_any_volume(url, window), None, True
    return open_source(f"{url}/em"), sink.provenance, isinstance(sink.attributes.get("ratio"), int)


def open_any_volume(url: str, window: Window | None) -> Source:
    """Any volume; how large its voxels are does not matter here, nor that nobody says so."""
    levels = find_volume(source_address(url)).levels
    voxel_size_nm = None if all(level.is_in_nm for level in levels) else (UNSTATED_NM,) * 3
    try:
        return open_source(url, voxel_size_nm=voxel_size_nm)
    except SourceError:  # not of uint8, perhaps
        if window is None:
            raise
        return open_source(url, voxel_size_nm=voxel_size_nm, window=window)


def _measured(url: str, source: Source, provenance: Voxels | None, ratio: int | None) -> list[int]:
    """The planes of a prediction that are sections."""
    if ratio is not None:
        return list(range(0, source.spec.shape[0], ratio))
    if provenance is None:
        raise ConfigError(
            f"{url} is not an output of vemdiffuse; say which planes are sections: --ratio R, or "
            "--every-plane for none"
        )
    planes: list[int] = np.flatnonzero(provenance == Provenance.MEASURED).tolist()
    return planes


def _resolutions(reports: dict[str, Report], voxel_nm: float) -> dict[str, dict[str, float]]:
    """Of each report the periods, in nm, at which its FSC crosses; nothing where no voxel size is stated."""
    if voxel_nm == UNSTATED_NM:
        return {name: {} for name in reports}
    return {
        name: {"fsc_nm": resolution_nm(r.fsc, voxel_nm), "fsc50_nm": resolution_nm(r.fsc50, voxel_nm)}
        for name, r in reports.items()
    }


def _read(source: Source, shape: Zyx) -> Voxels:
    """The first `shape` voxels of a volume."""
    if prod(shape) > MAX_VOXELS:
        raise ConfigError(f"{source.spec.url}: {prod(shape):.3g} voxels; at most 1e9 fit an evaluation")
    if any(n < wanted for n, wanted in zip(source.spec.shape, shape, strict=True)):
        raise ConfigError(
            f"{source.spec.url} has {show_shape(source.spec.shape)} voxels, the prediction has "
            f"{show_shape(shape)}; the truth must be as large, or larger"
        )
    if source.spec.shape != shape:
        click.echo(f"the truth, {show_shape(source.spec.shape)} voxels, is cut to the prediction", err=True)
    return source.read(Box.of_shape(shape))


def _reports(ours: Voxels, true: Voxels, measured: list[int], is_whole: bool) -> dict[str, Report]:
    """The report of the prediction, with those of interpolation where the sections are evenly spaced.

    `is_whole`: the measured planes are all the sections.
    """
    steps = set(np.diff(measured).tolist())
    if is_whole and len(steps) == 1 and measured[0] == 0 and measured[-1] == len(ours) - 1:
        return with_interpolation({"prediction": ours}, true, steps.pop())
    generated = sorted(set(range(len(ours))) - set(measured))
    return {"prediction": evaluate(ours, true, planes=generated)}
