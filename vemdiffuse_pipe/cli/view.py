"""vemdiffuse view: an output in neuroglancer or napari, or a picture of it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from threading import Event

import click

from vemdiffuse_pipe.errors import ConfigError


@click.command("view")
@click.argument("output")
@click.option(
    "--position-nm", nargs=3, type=float, metavar="Z Y X", help="Where to look; the middle if left out."
)
@click.option(
    "--layout",
    type=click.Choice(["xy", "xz", "4panel"]),
    default="4panel",
    show_default=True,
    help="Which cuts are shown.",
)
@click.option(
    "--screenshot", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw a picture and end."
)
@click.option("--overwrite", is_flag=True, help="Replace a picture that is there.")
@click.option("--url", "is_link", is_flag=True, help="Print the address of a public neuroglancer page.")
@click.option("--napari", "is_napari", is_flag=True, help="Open it in napari, where that is installed.")
def command(
    output: str,
    position_nm: tuple[float, float, float] | None,
    layout: str,
    screenshot: Path | None,
    overwrite: bool,
    is_link: bool,
    is_napari: bool,
) -> int:
    """Show an output in a viewer, or draw a picture of it.

    It works during the run and after it, on this machine. The source, em, uncertainty and labels lie over
    each other in nanometres. The page is served on loopback to whoever has the address that is printed;
    interrupt to end it.

    \b
    Examples:
      vemdiffuse view isotropic.zarr
      vemdiffuse view isotropic.zarr --screenshot xz.png --layout xz
      vemdiffuse view s3://bucket/isotropic.zarr --url
    """
    from vemdiffuse_pipe.handoff import viewer

    place = viewer.position(position_nm)
    if is_link:
        click.echo(viewer.view_link(output, place, layout))  # type: ignore[arg-type]
        return 0
    if is_napari:
        from vemdiffuse_pipe.handoff.napari import open_in_napari

        open_in_napari(output)
        return 0
    if screenshot is not None:
        _check_free(screenshot, overwrite)
        screenshot.write_bytes(viewer.view_picture(output, place, layout))  # type: ignore[arg-type]
        click.echo(f"{screenshot} shows {output}")
        return 0
    with viewer.serve(output, place, layout) as (page, shown):  # type: ignore[arg-type]
        for sentence in shown.missing:
            click.echo(f"not shown: {sentence}", err=True)
        click.echo(f"{page.get_viewer_url()}\nInterrupt (Ctrl-C) to end the viewer.")
        with suppress(KeyboardInterrupt):
            Event().wait()
    return 0


def _check_free(file: Path, overwrite: bool) -> None:
    """Raises ConfigError where `file` is there and nobody said that it may be replaced."""
    if file.exists() and not overwrite:
        raise ConfigError(f"{file} exists; choose another name, or give --overwrite")
