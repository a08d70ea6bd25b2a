"""The embedded default on data that it was not trained on, and what tiles do to its planes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tifffile

from vemdiffuse_pipe.config import parse
from vemdiffuse_pipe.evaluation import Report, evaluate, interpolate
from vemdiffuse_pipe.geometry.frame import Frame, exact_nm
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.models.card import WEIGHTS, find_card
from vemdiffuse_pipe.models.checkpoint import load_model
from vemdiffuse_pipe.plan.plan import make_plan
from vemdiffuse_pipe.render.block import Hardware, render_block
from vemdiffuse_pipe.volume import VolumeSpec, Voxels

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
def drawn(depth: int, side: int, samples: int, tile_px: int | None = None) -> Voxels:
    """The default model's planes from every fifth section."""
    sections = held_out(depth, side)[::R]
    contrast = [float(sections.mean()), float(sections.std())]
    model = {"name": "default", "ratio": R, "samples": samples, "tile_px": tile_px, "precision": "bfloat16"}
    run_file = parse({"source": {"url": "-", "contrast": contrast}, "output": {"url": "-"}, "model": model})
    frame = Frame(sections.shape, exact_nm([50, 10, 10]))
    spec = VolumeSpec("-", "array", frame, "uint8", (1, 64, 64), (1, 64, 64))
    plan = make_plan(run_file, spec, find_card("default"))
    filler = load_model(
        "default", steps=plan.sampling.steps, contrast=plan.contrast, precision=plan.sampling.precision
    )
    return render_block(plan, filler, sections, plan.output.box, Hardware(n_threads=2))["em"]


@cache
def report(name: str) -> Report:
    depth, side = 41, 160
    truth = held_out(depth, side)
    orders = {"linear": 1, "cubic": 3}
    if name in orders:
        prediction = to_grey(interpolate(truth[::R], R, orders[name]))
    else:
        prediction = drawn(depth, side, int(name))
    return evaluate(prediction, truth, planes=[p for p in range(depth) if p % R])


def test_it_is_at_most_ten_megabytes() -> None:
    assert (WEIGHTS / "default.safetensors").stat().st_size < 10_000_000


@pytest.mark.parametrize(("samples", "gain_db"), [("2", 0.2), ("4", 0.7)])
def test_its_mean_beats_cubic_interpolation(samples: str, gain_db: float) -> None:
    assert report(samples).psnr > report("cubic").psnr + gain_db


@pytest.mark.parametrize(("samples", "view"), [("2", "fsim_xz"), ("4", "fsim_xy")])
def test_its_mean_is_more_like_the_truth_than_interpolation(samples: str, view: str) -> None:
    ours = report(samples).as_dict()[view]
    assert ours > max(report("linear").as_dict()[view], report("cubic").as_dict()[view])


def test_a_single_sample_has_the_texture_of_the_truth() -> None:
    one = report("1")
    assert one.hf_x == pytest.approx(1, abs=0.15)
    assert one.hf_z == pytest.approx(1, abs=0.20)


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
    whole, tiled = drawn(depth, side, 1, side)[generated], drawn(depth, side, 1, tile)[generated]
    difference = np.abs(whole.astype(int) - tiled)
    assert (difference > 0).any()
    assert (difference <= 1).mean() > 0.999
    starts = np.arange(tile - overlap, side - overlap, tile - overlap)
    borders = np.concatenate([starts, starts + overlap])
    ratio = _gradient_on_borders(tiled, borders) / _gradient_on_borders(whole, borders)
    assert ratio == pytest.approx(1, abs=0.02)
