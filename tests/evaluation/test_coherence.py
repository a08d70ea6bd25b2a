"""Flicker between planes, and lines that sections lack."""

import math

import numpy as np
import pytest
from scipy import ndimage

from vemdiffuse_pipe.evaluation import evaluate
from vemdiffuse_pipe.evaluation.coherence import flicker, line_scores
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.phantom import phantom

SHAPE = (31, 47, 53)
R = 5
GENERATED = [z for z in range(SHAPE[0]) if z % R]


def noise(seed, shape=SHAPE):
    return np.random.Generator(np.random.PCG64(seed)).normal(0, 20, shape)


@pytest.fixture(scope="module")
def truth():
    return to_grey(128 + noise(0))


def test_planes_that_change_as_much_as_the_truths_have_a_flicker_of_one(truth):
    assert flicker(truth, truth, GENERATED) == 1
    assert flicker(to_grey(128 + noise(1)), truth, GENERATED) == pytest.approx(1, abs=0.02)


def test_planes_that_repeat_have_none_and_planes_that_alternate_have_more(truth):
    assert flicker(np.repeat(truth[:1], SHAPE[0], axis=0), truth, GENERATED) == 0
    assert flicker(to_grey(128 + 2 * noise(1)), truth, GENERATED) == pytest.approx(2, abs=0.05)


def test_steps_into_measured_sections_do_not_count(truth):
    brighter = truth.copy()
    brighter[GENERATED] = np.minimum(truth[GENERATED], 200) + 50
    assert flicker(brighter, truth, GENERATED) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("offset", [0, 20])
def test_an_offset_changes_no_flicker(truth, offset):
    dim = truth // 2
    assert flicker(dim + np.uint8(offset), truth, GENERATED) == flicker(dim, truth, GENERATED)


def test_at_ratio_two_no_generated_planes_are_neighbours(truth):
    odd = range(1, SHAPE[0], 2)
    assert flicker(truth, truth, odd) is None
    assert evaluate(truth, truth, planes=odd).as_dict()["flicker"] is None


def sections(seed):
    """Texture that differs along and across, as that of real sections does."""
    return [ndimage.gaussian_filter(plane, (0.4, 0.7)) * 2 for plane in noise(seed, (32, 96, 80))]


def with_lines(planes, axis, deviation, degrees=0.0):
    """Each plane plus white lines across `axis`, turned by `degrees`, 96 long."""
    lines = [
        np.random.Generator(np.random.PCG64(9 + i)).normal(0, deviation, 192) for i in range(len(planes))
    ]
    pictures = [np.repeat(np.expand_dims(line, 1 - axis), 192, axis=1 - axis) for line in lines]
    turned = [ndimage.rotate(p, degrees, reshape=False, order=1)[48:144, 48:128] for p in pictures]
    return [plane + line for plane, line in zip(planes, turned, strict=True)]


def test_planes_like_the_sections_score_one():
    assert line_scores(sections(1), sections(2)) == pytest.approx((1, 1), abs=0.06)


@pytest.mark.parametrize("axis", [0, 1])
def test_injected_lines_raise_the_score_of_their_axis_and_not_the_other(axis):
    weak, strong = (line_scores(with_lines(sections(1), axis, d), sections(2)) for d in (5, 20))
    assert 1.04 < weak[axis] < strong[axis]
    assert strong[axis] > 1.5
    assert strong[1 - axis] < 1


@pytest.mark.parametrize("degrees", [10, 30])
def test_lines_within_fifteen_degrees_of_an_axis_count(degrees):
    found = line_scores(with_lines(sections(1), 0, 20, degrees), sections(2))[0]
    assert (found > 1.2) == (degrees < 15)


@pytest.mark.parametrize(("gain", "offset"), [(0.5, 0), (2, -100)])
def test_scale_and_offset_change_no_score(gain, offset):
    planes = with_lines(sections(1), 0, 8)
    expected = line_scores(planes, sections(2))
    assert line_scores([p * gain + offset for p in planes], sections(2)) == pytest.approx(expected)


def test_transposing_both_swaps_the_scores():
    planes, measured = with_lines(sections(1), 0, 8), sections(2)
    along_y, along_x = line_scores(planes, measured)
    assert line_scores([p.T for p in planes], [m.T for m in measured]) == pytest.approx((along_x, along_y))


def test_more_of_the_same_texture_is_no_line():
    """Noise that is stronger and equally distributed raises HF, not the score."""
    assert line_scores([2 * p for p in sections(1)], sections(2)) == pytest.approx((1, 1), abs=0.06)


def test_flat_planes_have_no_lines_and_flat_sections_no_measure():
    flat, rough = [np.full((32, 32), 9.0)] * 2, [noise(3, (32, 32))]
    assert line_scores(flat, flat) == (1, 1)
    assert line_scores(flat, rough) == (0, 0)
    assert line_scores(rough, flat) == (math.inf, math.inf)


def test_the_report_holds_lines_of_generated_planes_against_the_sections():
    volume = phantom(SHAPE, 4)
    lines = np.random.Generator(np.random.PCG64(5)).normal(0, 12, (SHAPE[0], SHAPE[1], 1))
    clean, lined = (evaluate(v, volume, planes=GENERATED) for v in (volume, to_grey(volume + lines)))
    assert clean.lines_y == pytest.approx(1, abs=0.15)
    assert lined.lines_y > 1.5 * clean.lines_y
    assert lined.lines_x < clean.lines_x
