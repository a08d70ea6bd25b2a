"""The phantom is the same everywhere, and like tissue."""

import numpy as np
import pytest
from scipy import ndimage

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.phantom import phantom

SHAPE = (41, 96, 97)


@pytest.fixture(scope="module")
def tissue():
    return np.stack([phantom(SHAPE, seed) for seed in range(6)])


def neighbour_correlation(volume, axis):
    lines = np.moveaxis(volume.astype(float), axis, 0)
    return np.corrcoef(lines[:-1].ravel(), lines[1:].ravel())[0, 1]


def test_the_same_arguments_give_the_same_bytes(tissue):
    assert (phantom(SHAPE, 0) == tissue[0]).all()


def test_another_seed_gives_other_tissue(tissue):
    smooth = [ndimage.gaussian_filter(v.astype(float), 2) for v in tissue[:2]]
    assert abs(np.corrcoef(smooth[0].ravel(), smooth[1].ravel())[0, 1]) < 0.3


def test_the_phantom_is_pinned():
    """Means of 12 x 16 x 20 voxels: the last bit of an exponential may differ by CPU, these may not."""
    volume = phantom((24, 32, 40), 7).astype(np.float64)
    means = volume.reshape(2, 12, 2, 16, 2, 20).mean(axis=(1, 3, 5)).ravel()
    assert means.tolist() == pytest.approx(
        [120.059, 108.971, 126.302, 106.314, 100.402, 107.776, 101.33, 105.774], abs=0.02
    )


def test_grey_levels_are_like_those_of_fibsem(tissue):
    """FIB-25: mean 130, deviation 27."""
    assert tissue.mean() == pytest.approx(130, abs=6)
    assert tissue.std() == pytest.approx(28, abs=4)
    assert np.mean((tissue < 20) | (tissue > 235)) < 1e-3


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_neighbouring_planes_are_as_alike_as_in_fibsem(tissue, axis):
    """FIB-25: 0.954, 0.955, 0.959 along z, y, x."""
    found = np.mean([neighbour_correlation(v, axis) for v in tissue])
    assert found == pytest.approx(0.95, abs=0.015)


def test_noise_is_smoother_along_x_than_along_z(tissue):
    along_z, along_x = (np.abs(np.diff(tissue.astype(int), 2, axis=axis)).mean() for axis in (1, 3))
    assert along_x < 0.85 * along_z


def test_membranes_are_thin_dark_sheets(tissue):
    """Dark voxels are a minority, most of them within 40 nm of brighter ones."""
    smooth = ndimage.gaussian_filter(tissue.astype(float), (0, 1, 1, 1))
    dark = smooth < 105
    thick = np.stack([ndimage.binary_erosion(v, iterations=4) for v in dark])
    assert 0.1 < dark.mean() < 0.45
    assert thick.sum() < 0.35 * dark.sum()


def test_a_larger_voxel_shows_more_tissue():
    """In coarse voxels more membranes fit: neighbours are less alike."""
    fine, coarse = (phantom((31, 64, 64), 1, voxel_size_nm=v) for v in (8.0, 30.0))
    assert neighbour_correlation(coarse, 1) < neighbour_correlation(fine, 1) - 0.1


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 5, 3), (1, 43, 2)])
def test_any_shape_is_filled(shape):
    volume = phantom(shape, 2**64 - 1)
    assert volume.shape == shape
    assert volume.dtype == np.uint8
    assert volume.min() > 0


@pytest.mark.parametrize(
    ("shape", "seed", "voxel_size_nm", "says"),
    [
        ((0, 5, 5), 0, 10.0, "(0, 5, 5)"),
        ((5, 5), 0, 10.0, "three lengths"),
        ((5, 5, 5), -1, 10.0, "seed -1"),
        ((5, 5, 5), 2**64, 10.0, "seed"),
        ((5, 5, 5), 0, 0.0, "0.0 nm"),
        ((5, 5, 5), 0, float("nan"), "nan nm"),
    ],
)
def test_wrong_input_is_refused(shape, seed, voxel_size_nm, says):
    with pytest.raises(ConfigError) as refusal:
        phantom(shape, seed, voxel_size_nm=voxel_size_nm)
    assert says in str(refusal.value)
