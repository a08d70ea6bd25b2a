"""vemdiffuse export: an output in the format that another program reads."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from vemdiffuse_pipe.cli.options import json_option, part_runner, part_runner_options, print_json
from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import exact_nm

if TYPE_CHECKING:
    from vemdiffuse_pipe.handoff.export import Export

FORMATS = ["precomputed", "n5", "ome-zarr-0.4", "ome-zarr-0.5", "tiff"]
ENCODINGS = ["raw", "jpeg", "png", "compressed_segmentation"]


@click.command("export")
@click.argument("output")
@click.argument("destination")
@click.option(
    "--format", "image_format", type=click.Choice(FORMATS), required=True, help="What it is written as."
)
@click.option("--array", default="em", show_default=True, metavar="NAME", help="Which array of the output.")
@click.option(
    "--region",
    nargs=6,
    type=int,
    metavar="Z Y X Z Y X",
    help="A part: first voxel and the one past the last.",
)
@click.option("--region-nm", nargs=6, type=float, metavar="Z Y X Z Y X", help="The same in nanometres.")
@click.option(
    "--encoding",
    type=click.Choice(ENCODINGS),
    default="raw",
    show_default=True,
    help="Of precomputed chunks; jpeg loses grey levels.",
)
@click.option(
    "--sharded/--no-sharded", "is_sharded", default=True, show_default=True, help="Many chunks in one object."
)
@click.option(
    "--levels", "n_levels", type=click.IntRange(1, 32), metavar="N", help="Levels, the finest included."
)
@click.option(
    "--partial", "is_partial", is_flag=True, help="Copy what is there of an incomplete output; the rest is 0."
)
@part_runner_options
@json_option
def command(
    output: str,
    destination: str,
    image_format: str,
    array: str,
    region: tuple[int, ...] | None,
    region_nm: tuple[float, ...] | None,
    encoding: str,
    is_sharded: bool,
    n_levels: int | None,
    is_partial: bool,
    part: str | None,
    workers: int,
    as_json: bool,
) -> int:
    """Copy an output into the format of another program.

    One array is copied, with all its levels. Rerun to resume.

    Every voxel is read back and compared. DESTINATION is the image itself: a folder or an address for
    precomputed, N5 and OME-Zarr; for tiff a name ending in .tif for one file, or a folder of sections.

    \b
    Examples:
      vemdiffuse export isotropic.zarr isotropic.precomputed --format precomputed
      vemdiffuse export isotropic.zarr isotropic.n5 --format n5
      vemdiffuse export isotropic.zarr part.tif --format tiff --region 0 0 0 20 40 40
    """
    from vemdiffuse_pipe.cli.progress import progress
    from vemdiffuse_pipe.handoff.export import ExportRequest, export

    request = ExportRequest(
        array=array,
        box=_box(output, region, region_nm),
        image_format=image_format,  # type: ignore[arg-type]
        encoding=encoding,  # type: ignore[arg-type]
        is_sharded=is_sharded,
        n_levels=n_levels,
        is_partial=is_partial,
    )
    with progress(sys.stderr) as listener:
        made = export(output, destination, request, runner=part_runner(part, workers), listener=listener)
    _print(made, f"{array} as {image_format}", as_json)
    return made.outcome.exit_code


def _print(made: Export, what: str, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "destination": made.destination,
                "levels": made.n_levels,
                "moved_nm": made.moved_nm,
                "largest_error": made.largest_error,
                "mean_error": made.mean_error,
            }
        )
    else:
        moved = ", ".join(f"{nm:g}" for nm in made.moved_nm)
        shift = (
            f"; its corner had to move by {moved} nm, z y x, to whole voxels" if any(made.moved_nm) else ""
        )
        loss = (
            f"; off by up to {made.largest_error} grey levels, {made.mean_error:.2g} on average"
            if made.largest_error
            else ""
        )
        click.echo(f"{made.destination}: {made.n_levels} level(s) of {what}{shift}{loss}")


def _box(output: str, region: tuple[int, ...] | None, region_nm: tuple[float, ...] | None) -> Box | None:
    """The part that is exported, in voxels; one that is given in nm is widened to whole voxels."""
    if region is not None and region_nm is not None:
        raise ConfigError("--region and --region-nm both say which part; leave one of them out")
    if region is not None:
        z, y, x, z_stop, y_stop, x_stop = region
        return Box((z, y, x), (z_stop, y_stop, x_stop))
    if region_nm is None:
        return None
    from vemdiffuse_pipe.handoff.regions import box_of_region_nm

    return box_of_region_nm(output, exact_nm(region_nm[:3]), exact_nm(region_nm[3:]))
