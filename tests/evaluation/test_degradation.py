"""Sections from a truth, and where their centres lie."""

import numpy as np
import pytest

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.evaluation.degradation import degrade


def ramp(n):
    """Plane z holds the grey level 4 z everywhere: a mean of planes is the plane at its centre."""
    return np.repeat(np.arange(n, dtype=np.uint8)[:, None, None] * 4, 5, axis=1).repeat(7, axis=2)


@pytest.mark.parametrize("degradation", ["dropped", "averaged"])
@pytest.mark.parametrize("r", [2, 3, 4, 5, 8, 10])
def test_the_centre_of_section_u_is_plane_u_times_r_of_the_truth(degradation, r):
    degraded = degrade(ramp(61), r, degradation)
    assert np.array_equal(degraded.sections, degraded.truth[::r])
    assert len(degraded.truth) == (len(degraded.sections) - 1) * r + 1
    assert degraded.generated == [z for z in range(len(degraded.truth)) if z % r]


@pytest.mark.parametrize(("degradation", "n_planes"), [("dropped", 61), ("averaged", 56)])
def test_as_many_sections_as_there_are_whole_ones(degradation, n_planes):
    assert len(degrade(ramp(61), 5, degradation).truth) == n_planes
    assert len(degrade(ramp(60), 5, degradation).truth) == 56


def test_dropped_sections_are_planes_and_averaged_ones_are_means():
    volume = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (23, 5, 7), np.uint8)
    dropped, odd = degrade(volume, 5, "dropped"), degrade(volume, 5, "averaged")
    assert np.array_equal(dropped.sections, volume[::5])
    assert np.array_equal(odd.sections[1], np.floor(volume[5:10].mean(axis=0) + 0.5).astype(np.uint8))
    assert np.array_equal(odd.truth, volume[2:18])
    even = degrade(volume, 4, "averaged")
    box = (volume[4] / 2 + volume[5:8].sum(axis=0) + volume[8] / 2) / 4
    assert np.array_equal(even.sections[1], np.floor(box + 0.5).astype(np.uint8))
    assert np.array_equal(even.truth, volume[2:19])


@pytest.mark.parametrize(("n", "degradation", "needed"), [(5, "dropped", 6), (9, "averaged", 10)])
def test_too_few_planes_are_refused(n, degradation, needed):
    with pytest.raises(ConfigError, match=f"at least {needed} planes"):
        degrade(ramp(n), 5, degradation)
    assert len(degrade(ramp(needed), 5, degradation).sections) == 2
