"""vemdiffuse register: a raw image registered to its clean counterpart."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vemdiffuse_pipe.cli.options import json_option, print_json, print_table, window_option

if TYPE_CHECKING:
    from vemdiffuse_pipe.training.register import SectionFit


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
def command(
    raw: str, clean: str, output: Path, scale: int, window: tuple[float, float] | None, as_json: bool
) -> None:
    """Register a raw image to its clean counterpart.

    Keypoints and a homography come first, then dense optical flow. OUTPUT is a TIFF on the pixels of CLEAN,
    with a page for each section. OUTPUT.valid.tif beside it is 255 where the pair can be trusted. The
    misalignment that is left is measured and printed.

    \b
    Examples:
      vemdiffuse register raw.tif clean.tif raw_on_clean.tif
      vemdiffuse register raw.tif clean.tif raw_on_clean_half.tif --scale 2 --json
    """
    from vemdiffuse_pipe.training.register import register  # imports scikit-image

    registered = register(raw, clean, output, scale=scale, window=window)
    if as_json:
        print_json({"output": str(output), "sections": [asdict(fit) for fit in registered.sections]})
    else:
        print_table({f"section {i}": _fit_text(fit) for i, fit in enumerate(registered.sections)})


def _fit_text(fit: SectionFit) -> str:
    left = (
        f"left {fit.residual_px} px (95th percentile {fit.residual_p95_px}), before {fit.before_px} px"
        if fit.residual_px is not None
        else "the image is too small for a patch of 64 px: the misalignment was not measured"
    )
    return f"{fit.n_agreeing} of {fit.n_keypoints} keypoints agree, {fit.valid:.0%} valid; {left}"
