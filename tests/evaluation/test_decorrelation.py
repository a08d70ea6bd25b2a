"""Decorrelation analysis finds the cutoff of an image from the image alone."""

import numpy as np
import pytest
from scipy import ndimage

from vemdiffuse_pipe.evaluation.decorrelation import decorrelation_cutoff


def random(seed=0):
    return np.random.Generator(np.random.PCG64(seed))


def band_limited(limit, shape=(192, 160), seed=0):
    """Noise of mean 100 and deviation 40 without frequencies above `limit`, a fraction of Nyquist."""
    fy, fx = (np.fft.fftfreq(n) * 2 for n in shape)
    inside = np.hypot(fy[:, None], fx) < limit
    image = np.fft.ifft2(np.fft.fft2(random(seed).normal(size=shape)) * inside).real
    return 100 + 40 * image / image.std()


@pytest.mark.parametrize("limit", [0.2, 0.35, 0.5, 0.65, 0.8])
@pytest.mark.parametrize("noise", [0, 0.4, 4])
def test_the_cutoff_of_band_limited_noise_is_its_limit(limit, noise):
    """Without noise and with 1 % and 10 % of white noise; a ring is 0.0125 wide, the taper blurs as much."""
    image = band_limited(limit) + random(1).normal(0, noise or 1e-9, (192, 160))
    assert decorrelation_cutoff([image]) == pytest.approx(limit, abs=0.025)


@pytest.mark.parametrize(("gain", "offset"), [(3.0, 0.0), (0.25, 50.0), (-1.0, 255.0)])
def test_scale_offset_and_sign_change_nothing(gain, offset):
    image = band_limited(0.4)
    assert decorrelation_cutoff([image * gain + offset]) == decorrelation_cutoff([image])


def test_transposing_and_mirroring_change_nothing():
    image = band_limited(0.6)
    assert decorrelation_cutoff([image.T]) == pytest.approx(decorrelation_cutoff([image]), abs=1e-9)
    assert decorrelation_cutoff([image[::-1]]) == pytest.approx(decorrelation_cutoff([image]), abs=0.0126)


def test_many_small_views_say_what_a_large_one_says():
    views = [band_limited(0.5, (48, 40), seed) for seed in range(16)]
    assert decorrelation_cutoff(views) == pytest.approx(0.5, abs=0.06)


def test_every_view_counts_whatever_the_order():
    views = [band_limited(limit, (96, 80)) for limit in (0.2, 0.6)]
    assert decorrelation_cutoff(views) == decorrelation_cutoff(views[::-1]) != decorrelation_cutoff(views[:1])


def test_stronger_blur_lowers_the_cutoff():
    scene, noise = random(2).normal(size=(192, 160)), random(3).normal(size=(192, 160))
    cutoffs = [
        decorrelation_cutoff([ndimage.gaussian_filter(scene, sigma) * sigma + 0.02 * noise])
        for sigma in (0.8, 1.5, 3.0)
    ]
    assert cutoffs[0] > cutoffs[1] * 1.3 > cutoffs[2] * 1.3**2


@pytest.mark.parametrize("image", [np.full((64, 48), 7.0), random(4).normal(size=(192, 160))])
def test_a_constant_image_and_white_noise_have_no_cutoff(image):
    assert decorrelation_cutoff([image]) is None
