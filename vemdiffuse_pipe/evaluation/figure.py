"""Rows of labelled panels with a scale bar and a colour scale, as one picture.

input      cubic      ours       truth      uncertainty      titles, once
xy: ...                                                      caption of a row
+--------+ +--------+ +--------+ +--------+ +--------+
|        | |        | |        | |        | |        |
+--------+ +--------+ +--------+ +--------+ +--------+
xz: ...
+--------+ +--------+ +--------+ +--------+ +--------+
+--------+ +--------+ +--------+ +--------+ +--------+
===== 500 nm                                 0 ==== 12       scale bar, colour scale
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.evaluation.picture import UNCERTAINTY, colours, enlarged
from vemdiffuse_pipe.volume import Voxels

GAP_PX = 8
TITLE_PX, CAPTION_PX = 18, 14
BAR_PX = 6  # thickness of the scale bar
STRIP_PX = 12  # thickness of the colour scale
INK, GREY = "black", (96, 96, 96)
NICE_NM = tuple(factor * 10**power for power in range(6) for factor in (1, 2, 5))

Panels = Mapping[str, Voxels]


@dataclass(frozen=True, slots=True)
class Scales:
    """What a pixel and a value mean."""

    pixel_nm: float
    """Edge of a square pixel of a panel, in nm."""
    uncertainty_step: float
    """Grey levels that one step of the panel titled 'uncertainty' stands for."""


def figure(rows: Mapping[str, Panels], *, scale: int, scales: Scales) -> Image.Image:
    """The rows below each other on white, each under its caption; RGB.

    `rows`: panels by title, by caption; a panel is a (row, column) uint8 image. All rows have the same titles
    in the same order, and the panels of one title are equally wide. `scale`: screen pixels a voxel. Raises
    ConfigError for other input.
    """
    _check(rows, scale)
    lefts, tops, page = _page(rows, scale)
    uncertain = [panels[UNCERTAINTY] for panels in rows.values() if UNCERTAINTY in panels]
    peak = _peak(uncertain)
    for (caption, panels), top in zip(rows.items(), tops[:-1], strict=True):
        _write(page, (GAP_PX, top - CAPTION_PX - GAP_PX), caption, CAPTION_PX, GREY)
        for title, voxels in panels.items():
            coloured = colours(voxels, peak if title == UNCERTAINTY else None)
            page.paste(enlarged(coloured, scale), (lefts[title], top))
    width_px = next(iter(panels.values())).shape[1] * scale
    _scale_bar(page, (GAP_PX, tops[-1]), width_px, scales.pixel_nm / scale)
    if uncertain:
        corner = (lefts[UNCERTAINTY], tops[-1])
        _colour_scale(page, corner, uncertain[0].shape[1] * scale, peak * scales.uncertainty_step)
    return page


def _page(rows: Mapping[str, Panels], scale: int) -> tuple[dict[str, int], list[int], Image.Image]:
    """Where the panels of each title begin, the top of each row and of what is below, and the page."""
    lefts, x = dict[str, int](), GAP_PX
    for title, voxels in next(iter(rows.values())).items():
        lefts[title] = x
        x += voxels.shape[1] * scale + GAP_PX
    row_px = CAPTION_PX + 2 * GAP_PX
    tops = [TITLE_PX + 2 * GAP_PX + row_px]
    for panels in rows.values():
        tops.append(tops[-1] + max(len(voxels) for voxels in panels.values()) * scale + row_px)
    tops[-1] += GAP_PX - row_px
    page = Image.new("RGB", (x, tops[-1] + CAPTION_PX + 2 * GAP_PX), "white")
    for title, left in lefts.items():
        _write(page, (left, GAP_PX), title, TITLE_PX, INK)
    return lefts, tops, page


def bar_nm(width_px: int, pixel_nm: float) -> int:
    """The longest of 1, 2, 5, 10, .. nm that is at most a third of `width_px` screen pixels; at least 1."""
    return max((nm for nm in NICE_NM if nm <= width_px * pixel_nm / 3), default=1)


def _peak(panels: list[Voxels]) -> int:
    """The value that gets the last colour: all but half a percent of the pixels are below it."""
    return max(1, *(int(np.percentile(voxels, 99.5)) for voxels in panels)) if panels else 1


def _scale_bar(page: Image.Image, corner: tuple[int, int], width_px: int, pixel_nm: float) -> None:
    length_nm = bar_nm(width_px, pixel_nm)
    x, y = corner
    length_px, middle = max(1, round(length_nm / pixel_nm)), y + CAPTION_PX // 2
    ImageDraw.Draw(page).rectangle(
        (x, middle - BAR_PX // 2, x + length_px - 1, middle + BAR_PX // 2 - 1), fill=INK
    )
    _write(page, (x + length_px + GAP_PX, y), f"{length_nm} nm", CAPTION_PX, INK)


def _colour_scale(page: Image.Image, corner: tuple[int, int], width_px: int, peak: float) -> None:
    """0, a strip of all colours, and the value of the last one with its unit."""
    x, y = corner
    values = np.tile(np.linspace(0, 255, max(2, width_px // 3)).astype(np.uint8), (STRIP_PX, 1))
    _write(page, (x, y), "0", CAPTION_PX, INK)
    strip = Image.fromarray(colours(values, 255))
    left = x + CAPTION_PX
    page.paste(strip, (left, y + (CAPTION_PX - STRIP_PX) // 2 + 1))
    _write(page, (left + strip.width + GAP_PX, y), f"{peak:.2g} grey levels or more", CAPTION_PX, INK)


def _write(
    page: Image.Image, corner: tuple[int, int], text: str, size: int, ink: str | tuple[int, int, int]
) -> None:
    ImageDraw.Draw(page).text(corner, text, fill=ink, font=ImageFont.load_default(size))


def _check(rows: Mapping[str, Panels], scale: int) -> None:
    if scale < 1 or not rows or not all(rows.values()):
        raise ConfigError(
            f"scale {scale} and {len(rows)} rows; a scale of 1 or more and panels in every row are needed"
        )
    titles, *others = (list(panels) for panels in rows.values())
    if any(other != titles for other in others):
        raise ConfigError("rows with different panels; the same titles in the same order are needed")
    for title in titles:
        shapes = {panels[title].shape[1:] for panels in rows.values()}
        if len(shapes) > 1 or any(panels[title].dtype != np.uint8 for panels in rows.values()):
            raise ConfigError(f"panels titled '{title}' differ in width or are not uint8; cut them alike")
