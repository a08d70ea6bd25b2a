"""The whole-volume reference."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.interpolate import make_interp_spline

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.evaluation import interpolate
from vemdiffuse_pipe.geometry.grey import to_grey

SHAPE = (7, 5, 11)


def sections(seed=0):
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 256, SHAPE, np.uint8)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("r", [1, 2, 5, 11])
def test_measured_sections_pass_unchanged(order, r):
    planes = interpolate(sections(), r, order)
    assert planes.shape == (6 * r + 1, 5, 11)
    assert planes.dtype == np.float64
    assert (planes[::r] == sections()).all()


@pytest.mark.parametrize("r", [2, 3, 5, 12])
def test_linear_planes_lie_at_u_plus_j_over_r(r):
    s = sections().astype(float)
    j = np.arange(r)[:, None, None] / r
    expected = np.concatenate([(1 - j) * a + j * b for a, b in pairwise(s)])
    assert np.abs(interpolate(sections(), r, 1)[:-1] - expected).max() < 1e-10


def test_cubic_planes_are_those_of_a_spline_through_the_mirrored_stack():
    s = sections().astype(float)
    mirrored = np.pad(s, ((24, 24), (0, 0), (0, 0)), mode="reflect")
    spline = make_interp_spline(np.arange(-24, 31), mirrored, k=3)
    expected = spline(np.arange(6 * 5 + 1) / 5)
    assert np.abs(interpolate(sections(), 5, 3) - expected).max() < 1e-6


def test_cubic_interpolation_of_two_sections_stays_between_them():
    planes = interpolate(np.stack([np.full((3, 4), 10.0), np.full((3, 4), 20.0)]), 4, 3)
    assert (np.diff(planes, axis=0) > 0).all()


@pytest.mark.parametrize(
    ("shape", "r", "order", "says"),
    [
        ((1, 5, 5), 5, 1, "2 sections"),
        ((5, 5), 5, 1, "(5, 5)"),
        (SHAPE, 0, 1, "r = 0"),
        (SHAPE, 5, 2, "order 2"),
    ],
)
def test_wrong_input_is_refused(shape, r, order, says):
    with pytest.raises(ConfigError) as refusal:
        interpolate(np.zeros(shape), r, order)
    assert says in str(refusal.value)


def test_grey_levels_round_to_the_nearest_with_ties_up_and_clip():
    values = np.array([-3.0, -0.4, 0.5, 1.49, 1.5, 2.5, 254.5, 255.4, 900.0])
    assert to_grey(values).tolist() == [0, 0, 1, 1, 2, 3, 255, 255, 255]
    assert to_grey(values).dtype == np.uint8


@pytest.mark.parametrize("r", [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
def test_float32_and_float64_arithmetic_give_the_same_grey_level(r):
    a, b = (v.ravel() for v in np.meshgrid(np.arange(256), np.arange(256)))
    for j in range(1, r):
        narrow = a.astype(np.float32) + np.float32(j / r) * (b - a).astype(np.float32)
        wide = (1 - j / r) * a + j / r * b
        exact = (2 * ((r - j) * a + j * b) + r) // (2 * r)
        assert (to_grey(narrow) == exact).all()
        assert (to_grey(wide) == exact).all()
