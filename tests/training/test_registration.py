"""Registration of images that were warped on purpose: what is left is held against the known warp."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.phantom import phantom
from vemdiffuse_pipe.training.pairs import with_noise
from vemdiffuse_pipe.training.registration import RegistrationError, register
from vemdiffuse_pipe.volume import Voxels

DATA = Path(__file__).parents[3] / "shared" / "data"
ELASTIC_PX, WAVE_PX = 4.0, 60.0
HOMOGRAPHY = np.array([[1.019, -0.052, 9.0], [0.052, 1.019, -7.0], [2e-5, -1e-5, 1.0]])  # of (x, y, 1)

Places = NDArray[np.float64]


def known_warp(shape: tuple[int, ...], seed: int) -> Callable[[Places], Places]:
    """Places (y, x) in a raw image -> places in the clean one: a smooth elastic field, then a homography."""
    rng = np.random.default_rng(seed)
    waves = [ndimage.gaussian_filter(rng.standard_normal(shape), WAVE_PX, mode="wrap") for _ in range(2)]
    field = [ELASTIC_PX * w / np.abs(w).max() for w in waves]

    def warp(places: Places) -> Places:
        y, x = (
            p + ndimage.map_coordinates(f, places, order=1, mode="nearest")
            for p, f in zip(places, field, strict=True)
        )
        across, down, depth = np.einsum("ij,jkl->ikl", HOMOGRAPHY, np.stack([x, y, np.ones_like(x)]))
        return np.stack([down / depth, across / depth])

    return warp


def warped(clean: Voxels, warp: Callable[[Places], Places]) -> Voxels:
    """The clean image, warped and noisy: a deviation of about 25 grey levels."""
    places = warp(np.indices(clean.shape).astype(float))
    moved = ndimage.map_coordinates(clean.astype(float), places, order=3, mode="reflect")
    return with_noise(to_grey(moved), peak=60, read_std=6, seed=1)


def misalignment(clean: Voxels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far off the known warp each valid pixel is, and what was said of patches, px."""
    warp = known_warp(clean.shape, 3)
    registration = register(warped(clean, warp), clean)
    off = np.hypot(*(warp(registration.places) - np.indices(clean.shape)))
    assert registration.valid.mean() > 0.7
    assert registration.before_px.mean() > 5
    return off[registration.valid], registration.residual_px


def test_a_warped_phantom_is_laid_back_within_half_a_pixel() -> None:
    off, said = misalignment(phantom((1, 320, 320), 4)[0])
    assert off.mean() < 0.3
    assert np.percentile(off, 95) < 0.5
    assert said.mean() < 0.3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "section"), [("fib25/volume_a_raw.tif", 230), ("drosophila_vnc_sstem/stack1_raw.tif", 3)]
)
def test_a_warped_section_is_laid_back_within_half_a_pixel(name: str, section: int) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"no {name}: this data set is not here")
    off, said = misalignment(tifffile.imread(DATA / name, key=section)[:400, :400])
    assert off.mean() < 0.3
    assert np.percentile(off, 95) < 0.5
    assert said.mean() < 0.3


def test_what_is_left_is_said_of_each_patch_whoever_warped_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patches are compared by their phase, not by the flow: without the flow they see what it would do."""
    clean = phantom((1, 256, 256), 4)[0]
    no_flow = np.zeros((2, *clean.shape))
    monkeypatch.setattr("vemdiffuse_pipe.training.registration._flow", lambda moved, clean, seen: no_flow)
    warp = known_warp(clean.shape, 3)
    registration = register(warped(clean, warp), clean)
    off = warp(registration.places) - np.indices(clean.shape)
    patches = [np.s_[y : y + 64, x : x + 64] for y in range(0, 193, 32) for x in range(0, 193, 32)]
    expected = [np.hypot(*(o[p].mean() for o in off)) for p in patches if registration.valid[p].all()]
    assert len(expected) > 4
    assert max(expected) > 0.5
    wrong = np.abs(registration.residual_px - expected)
    assert wrong.mean() < 0.2
    assert wrong.max() < 0.4


def test_the_scale_gives_pixels_twice_as_large_at_the_same_places() -> None:
    clean = phantom((1, 161, 161), 4)[0]
    twice = register(clean, clean, scale=2)
    assert twice.image.shape == twice.valid.shape == (80, 80)
    quarters = clean[:160, :160].reshape(80, 2, 80, 2).mean(axis=(1, 3))
    middle = np.s_[16:64, 16:64]
    right = np.abs(twice.image[middle] - quarters[middle]).mean()
    moved = np.abs(twice.image[middle] - clean[0:160:2, 0:160:2][middle].astype(float)).mean()
    assert right < 4 < moved


def test_images_of_different_places_are_refused_in_a_sentence() -> None:
    one, other = (phantom((1, 128, 128), seed)[0] for seed in (1, 2))
    with pytest.raises(RegistrationError, match=r"keypoints .* at least 20 are needed .* same place"):
        register(one, other)


@pytest.mark.parametrize("size", [8, 40])
def test_images_with_nothing_to_see_are_refused(size: int) -> None:
    flat = np.full((size, size), 7, np.uint8)
    with pytest.raises(RegistrationError, match="one grey level"):
        register(flat, flat)
    step = flat.copy()
    step[:, size // 2 :] = 90
    with pytest.raises(RegistrationError, match="keypoints"):
        register(step, step)
