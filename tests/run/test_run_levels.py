"""A coarse level is relied on for what the finest one shows only after it was compared with it."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from vemdiffuse_pipe.storage import open_source
from vemdiffuse_pipe.survey.bad_sections import BadSection, find_bad_sections, preflight_level
from vemdiffuse_pipe.survey.levels import shows_the_same
from vemdiffuse_pipe.testing import ArraySource

SHAPE = (9, 150, 131)
NM = (40.0, 4.0, 4.0)
NOISE = np.random.default_rng(3).normal(size=SHAPE)
TISSUE = np.clip(128 + 90 * gaussian_filter(NOISE, (0, 1.5, 1.5)) * 3, 1, 254).astype(np.uint8)
TISSUE[:, :, 60:] = np.clip(TISSUE[:, :, 60:] + 20 * NOISE[:, :, 60:], 1, 254)


def means(k):
    z, y, x = (SHAPE[0], SHAPE[1] // k, SHAPE[2] // k)
    return TISSUE[:, : y * k, : x * k].reshape(z, y, k, x, k).mean((2, 4)).astype(np.uint8)


def source(voxels, k=1):
    return ArraySource(np.ascontiguousarray(voxels), (NM[0], NM[1] * k, NM[2] * k))


SAME = {
    "pixels-2": (TISSUE[:, ::2, ::2], 2),
    "pixels-7": (TISSUE[:, ::7, ::7], 7),
    "middles-4": (TISSUE[:, 2::4, 2::4], 4),
    "means-2": (means(2), 2),
    "means-5": (means(5), 5),
    "smoothed-3": (gaussian_filter(TISSUE, (0, 1.5, 1.5))[:, 1::3, 1::3], 3),
    "largest-2": (
        np.maximum.reduce([TISSUE[:, i:149:2, j:130:2][:, :74, :65] for i in (0, 1) for j in (0, 1)]),
        2,
    ),
}
OTHER = {
    "zeros": (means(2) * 0, 2),
    "one-grey-level": (means(2) * 0 + 99, 2),
    "of-another-volume": (means(2)[:, ::-1, ::-1], 2),
    "sections-shifted": (np.roll(means(2), 1, 0), 2),
    "half-written": (np.where(np.arange(9)[:, None, None] < 5, means(2), 0), 2),
    "noise": (np.random.default_rng(4).integers(0, 255, (9, 75, 65), np.uint8), 2),
}


@pytest.mark.parametrize("name", SAME)
def test_a_level_that_was_made_of_the_finest_one_is_trusted(name):
    voxels, k = SAME[name]
    assert shows_the_same(source(voxels, k), source(TISSUE))


@pytest.mark.parametrize("name", OTHER)
def test_any_other_level_is_not(name):
    voxels, k = OTHER[name]
    assert not shows_the_same(source(voxels, k), source(TISSUE))


def test_black_margins_say_nothing():
    tissue = TISSUE.copy()
    tissue[:, :, :100] = 0
    assert shows_the_same(source(tissue[:, ::2, ::2], 2), source(tissue))
    assert not shows_the_same(source(tissue[:, ::2, ::2] * 0, 2), source(tissue))
    black = source(tissue * 0)
    assert not shows_the_same(black, black)


@pytest.mark.parametrize("level_1", ["absent", "empty", "zeros", "stale", "right"])
def test_a_declared_level_never_hides_a_bad_section(level_1, tmp_path):
    import zarr

    torn = TISSUE.copy()
    torn[4] = 0
    group = zarr.open_group(tmp_path, mode="w", zarr_format=3)
    levels = {"0": torn, "1": torn[:, ::2, ::2]}
    datasets = [
        {"path": name, "coordinateTransformations": [{"type": "scale", "scale": [40, 4 * k, 4 * k]}]}
        for name, k in (("0", 1), ("1", 2))
    ]
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    written = {"zeros": levels["1"] * 0, "stale": levels["1"][:, ::-1], "right": levels["1"]}
    zarr.create_array(tmp_path / "0", data=torn, config={"write_empty_chunks": True})
    if level_1 == "empty":
        zarr.create_array(tmp_path / "1", shape=levels["1"].shape, dtype="uint8", chunks=(9, 75, 66))
    elif level_1 != "absent":
        stored = {"config": {"write_empty_chunks": True}}
        zarr.create_array(tmp_path / "1", data=np.ascontiguousarray(written[level_1]), **stored)
    opened = open_source(tmp_path)
    assert preflight_level(opened).spec.level == ("1" if level_1 == "right" else "0")
    assert find_bad_sections(opened) == (BadSection(4, "black"),)
