"""Metrics reproduce values that other software computed on real images."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from vemdiffuse_pipe.evaluation.fsim import fsim
from vemdiffuse_pipe.evaluation.gmsd import gmsd
from vemdiffuse_pipe.evaluation.structure import psnr, ssim_of_view
from vemdiffuse_pipe.evaluation.views import View

METRICS = Path(__file__).parents[2] / ".." / "shared" / "data" / "metrics"
NAMES = (
    "linear_r5",
    "blur_1.5",
    "noise_12",
    "shift_1.5px",
    "contrast_0.8",
    "other_section",
    "identical",
    "noise_30_blur_1",
)
EVERY_ROW = np.ones(256, bool)

pytestmark = pytest.mark.skipif(
    not METRICS.is_dir(), reason="the golden values in ../shared/data/metrics are absent"
)


@cache
def golden(name):
    return json.loads((METRICS / "golden.json").read_text())["pairs"][name]


def pair(name):
    with np.load(METRICS / "pairs.npz") as pairs:
        return pairs[f"{name}__prediction"], pairs[f"{name}__truth"]


@pytest.mark.parametrize("name", NAMES)
def test_psnr_reproduces_the_golden_value(name):
    prediction, truth = pair(name)
    expected = golden(name)["psnr"]
    found = psnr(prediction[None], truth[None], [0])
    assert found == (float("inf") if expected is None else pytest.approx(expected, abs=1e-9))


@pytest.mark.parametrize("name", NAMES)
def test_ssim_of_a_view_reproduces_the_golden_value(name):
    found = ssim_of_view(View(*pair(name), EVERY_ROW))
    assert found == pytest.approx(golden(name)["ssim_gauss11"], abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_fsim_reproduces_the_golden_value(name):
    prediction, truth = (image.astype(np.float32) for image in pair(name))
    assert fsim(prediction, truth, EVERY_ROW) == pytest.approx(golden(name)["fsim"], abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gmsd_reproduces_the_golden_value(name):
    prediction, truth = (image.astype(np.float32) for image in pair(name))
    assert gmsd(prediction, truth, EVERY_ROW) == pytest.approx(golden(name)["gmsd"], abs=1e-6)
