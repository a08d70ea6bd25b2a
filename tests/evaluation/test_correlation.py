"""Fourier shell correlation finds where agreement was made to end."""

import numpy as np
import pytest
from scipy import ndimage

from vemdiffuse_pipe.evaluation import evaluate
from vemdiffuse_pipe.evaluation.correlation import HALF, SEVENTH, resolution_nm, shell_correlation
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.phantom import phantom

SHAPE = (41, 67, 73)
EVERY = range(SHAPE[0])


def white(seed):
    return np.random.Generator(np.random.PCG64(seed)).normal(128, 30, SHAPE)


def below(volume, limits):
    """The frequencies of a volume for which sum((f / limit)^2) < 1, fractions of Nyquist; zyx."""
    f = np.meshgrid(*(np.fft.fftfreq(n) * 2 for n in volume.shape), indexing="ij", sparse=True)
    inside = sum((g / limit) ** 2 for g, limit in zip(f, limits, strict=True)) < 1
    return np.fft.ifftn(np.fft.fftn(volume) * inside).real


def agreeing_below(limits):
    """White noise, and other white noise that is equal to it below `limits`."""
    truth, other = white(0), white(1)
    return to_grey(below(truth, limits) + other - below(other, limits)), to_grey(truth)


@pytest.mark.parametrize("limit", [0.2, 0.35, 0.5, 0.65, 0.8])
def test_the_crossing_is_where_agreement_ends(limit):
    """The Hann window smears the edge: 1/2 is crossed at it, 1/7 a shell (0.05) behind it at most."""
    shells = shell_correlation(*agreeing_below((limit,) * 3), EVERY)
    for curve in (shells.every, shells.z, shells.y, shells.x):
        assert shells.crossing(curve, HALF) == pytest.approx(limit, abs=0.02)
        assert limit < shells.crossing(curve, SEVENTH) < limit + 0.05


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_agreement_that_ends_early_along_one_axis_is_seen_near_that_axis(axis):
    """The frequencies near an axis reach 45 degrees away from it, so the curves are mixtures."""
    limits = [0.6, 0.6, 0.6]
    limits[axis] = 0.3
    shells = shell_correlation(*agreeing_below(limits), EVERY)
    found = [shells.crossing(curve, HALF) for curve in (shells.z, shells.y, shells.x)]
    early = found.pop(axis)
    assert early == pytest.approx(0.3, abs=0.06)
    assert min(found) > 0.45
    assert early < shells.crossing(shells.every, HALF) < max(found)


@pytest.mark.parametrize(("gain", "offset"), [(0.5, 0), (0.5, 90), (1, 7)])
def test_scale_and_offset_change_nothing(gain, offset):
    prediction, truth = agreeing_below((0.5, 0.5, 0.5))
    prediction = prediction.astype(float)
    shells, other = (shell_correlation(p, truth, EVERY) for p in (prediction, prediction * gain + offset))
    assert np.abs(shells.every - other.every).max() < 1e-4


def test_equal_volumes_agree_up_to_nyquist_and_independent_ones_nowhere():
    a, b = to_grey(white(0)), to_grey(white(1))
    equal, independent = (shell_correlation(a, other, EVERY) for other in (a, b))
    assert equal.every == pytest.approx(np.ones(20))
    assert equal.crossing(equal.every) == 1
    assert independent.crossing(independent.every) < 0.1


@pytest.mark.parametrize("r", [2, 3, 5])
def test_measured_sections_bring_no_correlation(r):
    """Equal to the truth in every r-th plane, unrelated between: nothing that was generated agrees."""
    truth, prediction = to_grey(white(0)), to_grey(white(1))
    prediction[::r] = truth[::r]
    shells = shell_correlation(prediction, truth, [z for z in EVERY if z % r])
    assert shells.every.max() < 1 / 7


def test_a_blurred_prediction_keeps_its_correlation_and_loses_only_what_noise_hides():
    truth = phantom((31, 47, 53), 3)
    noise = np.random.Generator(np.random.PCG64(0)).normal(0, 12, truth.shape)
    sharp, blurred = (
        evaluate(to_grey(v), truth).fsc for v in (truth + noise, ndimage.gaussian_filter(truth + noise, 1.0))
    )
    assert blurred == pytest.approx(sharp, abs=0.05)


def test_a_constant_prediction_agrees_with_a_constant_truth_only():
    flat = np.full(SHAPE, 90, np.uint8)
    assert (shell_correlation(flat, flat, EVERY).every == 1).all()
    assert (shell_correlation(flat, to_grey(white(0)), EVERY).every == 0).all()


def test_a_fraction_of_nyquist_is_a_period_in_nanometres():
    assert resolution_nm(1.0, 8.0) == 16.0
    assert resolution_nm(0.5, 10.0) == 40.0
    assert resolution_nm(0.0, 10.0) == float("inf")
