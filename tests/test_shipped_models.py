"""The small networks that are shipped beside the default: what their cards say, and what they are worth."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from vemdiffuse_pipe.comparison.compare import read_truth
from vemdiffuse_pipe.comparison.file import TruthTable
from vemdiffuse_pipe.comparison.in_memory import reconstruct_in_memory
from vemdiffuse_pipe.config import ModelTable
from vemdiffuse_pipe.evaluation import Report, evaluate
from vemdiffuse_pipe.evaluation.degradation import degrade
from vemdiffuse_pipe.models.card import BUILTIN, WEIGHTS, find_card, shipped_models

FIB25 = Path(__file__).parents[2] / "shared/data/fib25/volume_a_raw.tif"
NETWORKS = [name for name in shipped_models() if name not in BUILTIN["isotropic"]]
on_fib25 = pytest.mark.skipif(not FIB25.exists(), reason="the FIB-25 volumes are not beside this checkout")


@cache
def report(model: str, ratio: int, samples: int = 1) -> Report:
    """Of a part of the volume that nothing was trained on."""
    part = TruthTable(url=str(FIB25), voxel_size_nm=(10, 10, 10), planes=(230, 261), middle_px=64)
    degraded = degrade(read_truth(part), ratio, "dropped")
    table = ModelTable(name=model, ratio=ratio, samples=samples, precision="bfloat16")
    made = reconstruct_in_memory(degraded.sections, table).arrays["em"]
    assert np.array_equal(made[::ratio], degraded.sections)
    return evaluate(made, degraded.truth, planes=degraded.generated)


def test_the_default_the_earlier_one_and_the_two_small_ones_are_shipped() -> None:
    assert set(NETWORKS) == {"default", "fib25-2026-11", "one-pass", "udim", "a2i3dem"}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_card_says_device_time_data_licence_and_figures(name: str) -> None:
    card = find_card(name)
    assert "FIB-25" in card.trained_on
    assert "CPU" in card.training
    assert re.search(r"\d (h|minutes)\b", card.training)
    assert "BSD-3-Clause" in card.licence
    assert re.search(r"PSNR in dB.* r = \d: .*cubic interpolation \d\d\.\d\d", card.figures)


def test_all_weights_together_are_small() -> None:
    assert (WEIGHTS / "default.safetensors").stat().st_size < 16 * 10**6
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) < 20 * 10**6


@pytest.mark.slow
@on_fib25
def test_a2i3dem_beats_cubic_interpolation_at_its_ratio() -> None:
    """The order of its paper's table (Khateri et al. 2023): learnt from sections alone."""
    assert report("a2i3dem", 3).psnr > report("cubic", 3).psnr


@pytest.mark.slow
@on_fib25
def test_the_mean_of_more_samples_of_udim_errs_less_and_holds_less_texture() -> None:
    one, pair = report("udim", 5), report("udim", 5, 2)
    assert pair.psnr > one.psnr + 1
    assert one.hf_x > 2 * pair.hf_x
