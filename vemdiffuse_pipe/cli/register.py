"""vemdiffuse register: a raw image laid on the clean one of the same place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from vemdiffuse_pipe.cli.evaluate import open_any_volume
from vemdiffuse_pipe.cli.options import json_option, print_json, print_table, window_option
from vemdiffuse_pipe.errors import ConfigError, OutputError, SourceError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage.grey import Window, to_grey
from vemdiffuse_pipe.testing import ArraySource
from vemdiffuse_pipe.volume import Source, Voxels

if TYPE_CHECKING:
    from vemdiffuse_pipe.training.registration import Registration

MAX_PX = 10**8  # of an image: about 100 bytes a pixel are needed


@click.command("register")
@click.argument("raw")
@click.argument("clean")
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--scale",
    type=click.IntRange(1, 8),
    default=1,
    show_default=True,
    help="Pixels of OUTPUT, in clean ones.",
)
@window_option
@json_option
def command(raw: str, clean: str, output: Path, scale: int, window: Window | None, as_json: bool) -> None:
    """Lay a raw image on the clean one of the same place.

    Keypoints and a homography first, then dense optical flow. OUTPUT is a TIFF of as many pages as RAW and
    CLEAN have sections, on the pixels of CLEAN; beside it, OUTPUT.valid.tif is 255 where the pair may be
    believed. What misalignment is left is measured and printed.

    \b
    Examples:
      vemdiffuse register raw.tif clean.tif raw_on_clean.tif
      vemdiffuse register raw.tif clean.tif raw_on_clean_half.tif --scale 2 --json
    """
    sources = [_opened(url, window) for url in (raw, clean)]
    _check(raw, clean, output, sources)
    found = _register_all(sources[0], sources[1], output, scale)
    facts = [_facts(one) for one in found]
    if as_json:
        print_json({"output": str(output), "sections": facts})
    else:
        print_table({f"section {i}": _in_words(one) for i, one in enumerate(facts)})


def _opened(url: str, window: Window | None) -> Source:
    """A volume, or a single TIFF image, which is no volume elsewhere: one section."""
    try:
        return open_any_volume(url, window)
    except SourceError:
        image = _single_image(Path(url), window)
        if image is None:
            raise
        return ArraySource(image[None])


def _single_image(path: Path, window: Window | None) -> Voxels | None:
    """The image of a TIFF of one grey page; None for anything else. Raises SourceError for its dtype."""
    import tifffile

    if not path.is_file():
        return None
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            if len(file.pages) != 1 or page.ndim != 2 or prod(page.shape) > MAX_PX:
                return None
            values = page.asarray()
    except (tifffile.TiffFileError, ValueError, OSError, RuntimeError, IndexError):
        return None
    return to_grey(str(values.dtype), window, str(path))(values)


def _check(raw: str, clean: str, output: Path, sources: list[Source]) -> None:
    """Raises ConfigError or OutputError before anything is computed."""
    (n_raw, *raw_yx), (n_clean, *clean_yx) = (source.spec.shape for source in sources)
    if n_raw != n_clean:
        raise ConfigError(f"{raw} has {n_raw} sections and {clean} has {n_clean}; as many are needed")
    if max(raw_yx[0] * raw_yx[1], clean_yx[0] * clean_yx[1]) > MAX_PX:
        raise ConfigError(f"images of more than {MAX_PX:.0e} px; cut {raw} and {clean} into parts first")
    for path in (output, _mask_of(output)):
        if path.exists():
            raise OutputError(f"{path} is there already; choose another output, or move it away")
    if not output.absolute().parent.is_dir():
        raise OutputError(f"{output.parent} is no folder; make it first")


def _mask_of(output: Path) -> Path:
    return output.with_name(f"{output.name}.valid.tif")


def _register_all(raw: Source, clean: Source, output: Path, scale: int) -> list[Registration]:
    """Each section registered and written; both files appear when the last section is done."""
    import tifffile

    found: list[Registration] = []
    parts = [path.with_name(f".{path.name}.{os.getpid()}.part") for path in (output, _mask_of(output))]
    try:
        with tifffile.TiffWriter(parts[0], bigtiff=True) as images, tifffile.TiffWriter(parts[1]) as masks:
            for one in _each(raw, clean, scale):
                images.write(one.image, photometric="minisblack", contiguous=True)
                shown = np.where(one.valid, np.uint8(255), np.uint8(0))
                masks.write(shown, photometric="minisblack", contiguous=True)
                found.append(one)
        for part, path in zip(parts, (output, _mask_of(output)), strict=True):
            part.replace(path)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    return found


def _each(raw: Source, clean: Source, scale: int) -> Iterator[Registration]:
    from vemdiffuse_pipe.training.registration import RegistrationError, register

    for section in range(raw.spec.shape[0]):
        try:
            yield register(_section(raw, section), _section(clean, section), scale=scale)
        except RegistrationError as error:
            raise RegistrationError(f"section {section}: {error}") from None


def _section(source: Source, section: int) -> Voxels:
    ny, nx = source.spec.shape[1:]
    image: Voxels = source.read(Box((section, 0, 0), (section + 1, ny, nx)))[0]
    return image


def _facts(one: Registration) -> dict[str, float | int | None]:
    """What is known of a registration; None where no whole patch is valid."""

    def figure(value: np.floating) -> float:
        return round(float(value), 3)

    has_patches = one.residual_px.size > 0
    return {
        "n_keypoints": one.n_keypoints,
        "n_agreeing": one.n_agreeing,
        "valid": figure(one.valid.mean()),
        "before_px": figure(one.before_px.mean()) if has_patches else None,
        "residual_px": figure(one.residual_px.mean()) if has_patches else None,
        "residual_p95_px": figure(np.percentile(one.residual_px, 95)) if has_patches else None,
    }


def _in_words(facts: dict[str, float | int | None]) -> str:
    left = (
        f"left {facts['residual_px']} px (95th percentile {facts['residual_p95_px']}), "
        f"before {facts['before_px']} px"
        if facts["residual_px"] is not None
        else "too small for a patch of 64 px: what is left was not measured"
    )
    return (
        f"{facts['n_agreeing']} of {facts['n_keypoints']} keypoints agree, {facts['valid']:.0%} valid; {left}"
    )
