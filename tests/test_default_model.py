"""The embedded default on data that it was not trained on, and what tiles do to its planes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tifffile

from vemdiffuse_pipe.comparison.in_memory import reconstruct_in_memory
from vemdiffuse_pipe.config import ModelTable, PlaneThickness, RunTable
from vemdiffuse_pipe.evaluation import Report, evaluate, interpolate
from vemdiffuse_pipe.evaluation.degradation import Degradation, Degraded, degrade
from vemdiffuse_pipe.geometry.grey import UNCERTAINTY_STEP, to_grey
from vemdiffuse_pipe.volume import Voxels

FIB25 = Path(__file__).parents[2] / "shared/data/fib25/volume_a_raw.tif"
R = 5

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FIB25.exists(), reason="the FIB-25 volumes are not beside this checkout"),
]


@cache
def held_out(depth: int, side: int) -> Voxels:
    """The middle of the test part: sections that no model was trained on."""
    y, x = ((520 - side) // 2,) * 2
    truth: Voxels = tifffile.imread(FIB25, key=range(230, 230 + depth))[:, y : y + side, x : x + side]
    return truth


@cache
def made(
    depth: int, side: int, tile_px: int | None = None, degradation: Degradation = "dropped"
) -> tuple[Degraded, dict[str, Voxels]]:
    """All that the default model makes of a part of it."""
    degraded = degrade(held_out(depth, side), R, degradation)
    thickness: PlaneThickness = "thin" if degradation == "averaged" else "section"
    table = ModelTable(ratio=R, samples=1, tile_px=tile_px, precision="bfloat16", plane_thickness=thickness)
    run = RunTable(threads=2)
    rendered = reconstruct_in_memory(degraded.sections, table, run, section_planes=degraded.section_planes)
    return degraded, rendered.arrays


@cache
def report(name: str, degradation: Degradation = "dropped") -> Report:
    """Of the estimate (em), of a sample, or of cubic interpolation."""
    degraded, arrays = made(41, 160, None, degradation)
    cubic = to_grey(interpolate(degraded.sections, R, 3)) if name == "cubic" else None
    return evaluate(arrays[name] if cubic is None else cubic, degraded.truth, planes=degraded.generated)


@pytest.mark.parametrize(("degradation", "gain_db"), [("dropped", 1.3), ("averaged", 0.4)])
def test_its_estimate_beats_cubic_interpolation(degradation: Degradation, gain_db: float) -> None:
    ours, cubic = report("em", degradation), report("cubic", degradation)
    assert ours.psnr > cubic.psnr + gain_db
    assert ours.fsim_xz > cubic.fsim_xz
    assert ours.fsim_xy > cubic.fsim_xy


def test_a_single_sample_has_the_texture_of_the_truth() -> None:
    one = report("sample")
    assert one.hf_x == pytest.approx(1, abs=0.15)
    assert one.hf_z == pytest.approx(1, abs=0.20)


def test_its_uncertainty_is_as_large_as_its_error_at_every_position() -> None:
    degraded, arrays = made(41, 160)
    for j in range(1, R):
        error = arrays["em"][j::R].astype(float) - degraded.truth[j::R]
        spread = arrays["uncertainty"][j::R] * UNCERTAINTY_STEP
        ratio = np.sqrt(np.square(spread).mean() / np.square(error).mean())
        assert ratio == pytest.approx(1, abs=0.1), j


def _gradient_on_borders(planes: Voxels, borders: np.ndarray) -> float:
    """Mean step across `borders` over the mean step elsewhere, along y and x."""
    steps = [np.abs(np.diff(planes.astype(float), axis=axis)).mean(axis=(0, 3 - axis)) for axis in (1, 2)]
    on = np.zeros(len(steps[0]), bool)
    on[borders - 1] = True
    return float(np.mean([s[on].mean() / s[~on].mean() for s in steps]))


def test_tiles_leave_no_seam() -> None:
    """Against one tile that holds the whole plane; a tile's edges are where it starts and where it ends."""
    depth, side, tile, overlap = 21, 320, 128, 32
    generated = [p for p in range(depth) if p % R]
    whole, tiled = (made(depth, side, tile_px)[1]["sample"][generated] for tile_px in (side, tile))
    difference = np.abs(whole.astype(int) - tiled)
    assert (difference > 0).any()
    assert (difference <= 1).mean() > 0.999
    starts = np.arange(tile - overlap, side - overlap, tile - overlap)
    borders = np.concatenate([starts, starts + overlap])
    ratio = _gradient_on_borders(tiled, borders) / _gradient_on_borders(whole, borders)
    assert ratio == pytest.approx(1, abs=0.02)
