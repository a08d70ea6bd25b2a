"""Labelled panels side by side, as one picture."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.volume import Voxels

MARGIN_PX = 12
TITLE_PX = 16
UNCERTAINTY = "uncertainty"
# Black, violet, red, orange, pale yellow: brightness rises evenly, so it reads in grey too.
COLOURS = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float64)


def picture(panels: Mapping[str, Voxels], *, scale: int) -> Image.Image:
    """The panels side by side on white, each under its title; RGB.

    `panels`: (row, column) uint8 images by title. `scale`: screen pixels a voxel, 1 or more; voxels stay
    square blocks. The panel titled 'uncertainty' is coloured from black (0) to pale yellow (its largest
    value, which the title then gives). Raises ConfigError without panels or for other shapes and scales.
    """
    _check(panels, scale)
    images = [
        enlarged(colours(voxels, int(voxels.max()) if title == UNCERTAINTY else None), scale)
        for title, voxels in panels.items()
    ]
    titles = [_title(title, voxels) for title, voxels in panels.items()]
    font = ImageFont.load_default(TITLE_PX)
    widths = [max(im.width, int(np.ceil(font.getlength(t)))) for im, t in zip(images, titles, strict=True)]
    top = 2 * MARGIN_PX + TITLE_PX
    size = (sum(widths) + MARGIN_PX * (len(widths) + 1), top + max(im.height for im in images) + MARGIN_PX)
    page = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(page)
    left = MARGIN_PX
    for image, title, width in zip(images, titles, widths, strict=True):
        draw.text((left, MARGIN_PX), title, fill="black", font=font)
        page.paste(image, (left, top))
        left += width + MARGIN_PX
    return page


def _title(title: str, voxels: Voxels) -> str:
    return f"{title} (0 to {voxels.max()})" if title == UNCERTAINTY else title


def colours(voxels: Voxels, peak: int | None) -> NDArray[np.uint8]:
    """(row, column, 3) uint8: grey; where `peak` is given, from black at 0 to pale yellow at `peak`."""
    if peak is None:
        return np.repeat(voxels[..., None], 3, axis=2)
    share = np.minimum(1.0, voxels / max(1, peak)) * (len(COLOURS) - 1)
    stops = np.arange(len(COLOURS))
    channels = [np.interp(share, stops, COLOURS[:, c]) for c in range(3)]
    return np.stack(channels, axis=2).round().astype(np.uint8)


def enlarged(rgb: NDArray[np.uint8], scale: int) -> Image.Image:
    """The image with square blocks of `scale` px for its pixels."""
    return Image.fromarray(rgb.repeat(scale, axis=0).repeat(scale, axis=1))


def _check(panels: Mapping[str, Voxels], scale: int) -> None:
    if not panels:
        raise ConfigError("a picture of no panels; at least one titled image is needed")
    if scale < 1:
        raise ConfigError(f"scale {scale}; a whole number of screen pixels a voxel, 1 or more, is needed")
    for title, voxels in panels.items():
        if voxels.ndim != 2 or voxels.dtype != np.uint8 or voxels.size == 0:
            raise ConfigError(
                f"panel '{title}' has shape {voxels.shape} and dtype {voxels.dtype}; "
                "a (row, column) uint8 image is needed: take one plane of the volume"
            )
