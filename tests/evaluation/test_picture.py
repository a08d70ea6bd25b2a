"""The picture of labelled panels."""

import numpy as np
import pytest

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.evaluation import picture

PANEL = np.arange(5 * 7, dtype=np.uint8).reshape(5, 7)


def pixels(panels, scale):
    return np.asarray(picture(panels, scale=scale))


def find(page, colours):
    """Top-left corners at which an image of (row, column, 3) lies in the page."""
    windows = np.lib.stride_tricks.sliding_window_view(page, colours.shape)[:, :, 0]
    return np.argwhere((windows == colours).all(axis=(2, 3, 4)))


def test_every_voxel_becomes_a_square_block_of_its_grey_level():
    block = np.kron(PANEL, np.ones((3, 3), np.uint8))
    assert len(find(pixels({"truth": PANEL}, 3), np.stack([block] * 3, axis=-1))) == 1


def test_panels_stand_side_by_side_in_the_order_given_without_overlap():
    page = pixels({"a": PANEL, "b": 255 - PANEL}, 4)
    corners = [
        find(page, np.stack([np.kron(p, np.ones((4, 4), np.uint8))] * 3, axis=-1))[0]
        for p in (PANEL, 255 - PANEL)
    ]
    assert corners[0][0] == corners[1][0]
    assert corners[1][1] >= corners[0][1] + 4 * 7


def test_a_title_stands_above_each_panel_on_white():
    page = pixels({"truth": np.full((5, 60), 128, np.uint8)}, 2)
    top = find(page, np.full((10, 120, 3), 128, np.uint8))[0][0]
    assert (page[0] == 255).all()
    assert (page[:top] < 128).any()


def test_a_long_title_is_not_cut():
    narrow, wide = (picture({t: PANEL}, scale=1).width for t in ("x", "a title wider than its panel"))
    assert wide > narrow


def test_only_uncertainty_is_coloured_and_its_largest_value_is_palest():
    grey, coloured = (pixels({title: PANEL}, 2).astype(int) for title in ("truth", "uncertainty"))
    assert np.ptp(grey, axis=2).max() == 0
    assert np.ptp(coloured, axis=2).max() > 100
    assert len(find(coloured, np.full((2, 2, 3), (252, 255, 164)))) == 1


def test_uncertainty_of_zero_is_black():
    page = pixels({"uncertainty": np.zeros((3, 3), np.uint8)}, 2)
    assert len(find(page, np.full((6, 6, 3), (0, 0, 4), np.uint8))) == 1


@pytest.mark.parametrize(
    ("panels", "scale", "says"),
    [
        ({}, 1, "no panels"),
        ({"a": PANEL}, 0, "scale 0"),
        ({"a": PANEL[0]}, 1, "one plane"),
        ({"a": PANEL / 2}, 1, "float64"),
    ],
)
def test_wrong_input_is_refused(panels, scale, says):
    with pytest.raises(ConfigError) as refusal:
        picture(panels, scale=scale)
    assert says in str(refusal.value)
