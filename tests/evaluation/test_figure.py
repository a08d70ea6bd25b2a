"""The picture of rows of panels with a scale bar and a colour scale."""

from __future__ import annotations

import numpy as np
import pytest

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.evaluation import Scales, figure
from vemdiffuse_pipe.evaluation.figure import bar_nm
from vemdiffuse_pipe.evaluation.picture import COLOURS
from vemdiffuse_pipe.volume import Voxels

SCALES = Scales(pixel_nm=10.0, uncertainty_step=0.25)
TALL, FLAT = np.full((50, 60), 100, np.uint8), np.full((20, 60), 100, np.uint8)
ROWS = {
    "xy": {"truth": TALL, "uncertainty": np.full((50, 60), 8, np.uint8)},
    "xz": {"truth": FLAT, "uncertainty": np.full((20, 60), 8, np.uint8)},
}


def page() -> Voxels:
    pixels: Voxels = np.asarray(figure(ROWS, scale=2, scales=SCALES))
    return pixels


def area_of(colour: tuple[int, ...]) -> int:
    return int((page() == colour).all(axis=2).sum())


def test_every_row_shows_every_panel_enlarged() -> None:
    shown = 2 * 2 * (TALL.size + FLAT.size)
    assert shown <= area_of((100, 100, 100)) < 1.01 * shown  # letters have soft edges of any grey


def test_the_largest_uncertainty_has_the_last_colour_in_every_row() -> None:
    assert area_of(tuple(COLOURS[-1].astype(int))) >= 2 * 2 * (TALL.size + FLAT.size)


def test_the_scale_bar_is_as_long_as_it_says() -> None:
    black = (page() == 0).all(axis=2)
    longest = max(len(run) for row in black for run in "".join("x" if b else " " for b in row).split())
    assert bar_nm(2 * 60, 10.0 / 2) == 200
    assert longest == 200 * 2 / 10


@pytest.mark.parametrize(
    ("width_px", "pixel_nm", "length_nm"), [(320, 5.0, 500), (320, 2.3, 200), (1, 0.1, 1)]
)
def test_the_scale_bar_is_a_round_number_below_a_third_of_the_panel(
    width_px: int, pixel_nm: float, length_nm: int
) -> None:
    assert bar_nm(width_px, pixel_nm) == length_nm


@pytest.mark.parametrize(
    ("rows", "scale", "says"),
    [
        ({}, 1, "0 rows"),
        ({"xy": {"a": TALL}}, 0, "scale 0"),
        ({"xy": {"a": TALL}, "xz": {"b": FLAT}}, 1, "same titles"),
        ({"xy": {"a": TALL}, "xz": {"a": FLAT[:, 1:]}}, 1, "width"),
    ],
)
def test_rows_that_do_not_fit_are_refused(rows: dict[str, dict[str, Voxels]], scale: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        figure(rows, scale=scale, scales=SCALES)
