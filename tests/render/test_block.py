"""Rendering is pure: nothing but the plan's identity changes a voxel."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from vemdiffuse_pipe.config import parse
from vemdiffuse_pipe.errors import DataError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Frame, exact_nm
from vemdiffuse_pipe.geometry.grey import UNCERTAINTY_STEP, to_grey
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.models.card import ModelCard, find_card
from vemdiffuse_pipe.models.checkpoint import load_model, save_checkpoint
from vemdiffuse_pipe.models.lean import LeanConfig, LeanNetwork
from vemdiffuse_pipe.models.noise import voxel_noise
from vemdiffuse_pipe.models.protocol import GapView, Model
from vemdiffuse_pipe.models.samplers import Noise
from vemdiffuse_pipe.plan.plan import Plan, make_plan
from vemdiffuse_pipe.render.block import Hardware, render_block
from vemdiffuse_pipe.volume import VolumeSpec, Voxels

ONE_THREAD = Hardware()
SHAPE = (5, 53, 71)
SECTIONS = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)


@cache
def small_checkpoint() -> str:
    """A small lean network whose every weight matters, on disk."""
    torch.manual_seed(1)
    network = LeanNetwork(LeanConfig(channels=(8, 12), n_blocks=1, n_basis=4, n_embedding=16))
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn_like(p))
    path = Path(mkdtemp()) / "small.safetensors"
    card = ModelCard("small", "lean", "", True, True, 0, 0, 0, 2, 12, samples=2, steps=2, residual_scale=0.4)
    save_checkpoint(path, network, card)
    return str(path)


def plan_of(
    model: str, *, r: int = 3, block: Zyx | None = None, rejected: tuple[int, ...] = (), **table: object
) -> Plan:
    run_file = parse(
        {
            "source": {"url": "memory", "contrast": [128.0, 64.0], "rejected_sections": rejected},
            "output": {"url": "memory", "chunk_shape": [1, 1, 1], "shard_shape": [1, 1, 1]},
            "model": {"name": model, "ratio": r, **table},
            "run": {"block_shape": block} if block else {},
        }
    )
    frame = Frame(SHAPE, exact_nm([30, 10, 10]))
    spec = VolumeSpec("memory", "array", frame, "uint8", (1, 1, 1), (1, 1, 1))
    return make_plan(run_file, spec, find_card(model))


def model_of(plan: Plan) -> Model:
    s = plan.sampling
    return load_model(plan.run_file.model.name, steps=s.steps, contrast=plan.contrast, precision=s.precision)


def render(plan: Plan, box: Box, hardware: Hardware = ONE_THREAD) -> dict[str, Voxels]:
    return render_block(plan, model_of(plan), SECTIONS[plan.source_box(box).slices], box, hardware)


def whole(plan: Plan, hardware: Hardware = ONE_THREAD) -> dict[str, Voxels]:
    return render(plan, plan.output.box, hardware)


@cache
def reference() -> dict[str, Voxels]:
    return whole(plan_of(small_checkpoint(), tile_px=32, overlap_px=8))


starts = st.tuples(*(st.integers(0, n - 1) for n in (13, 53, 71)))


@settings(max_examples=5, deadline=None)
@given(st.tuples(st.integers(1, 13), st.integers(20, 53), st.integers(20, 71)))
def test_block_shape_does_not_change_voxels(block: Zyx) -> None:
    plan = plan_of(small_checkpoint(), tile_px=32, overlap_px=8)
    grid = BlockGrid(plan.output.shape, block)
    for index in range(grid.n_blocks):
        box = grid.box(index)
        for name, voxels in render(plan, box).items():
            assert np.array_equal(voxels, reference()[name][box.slices]), (name, box)


@settings(max_examples=10, deadline=None)
@given(starts, st.tuples(st.integers(1, 5), st.integers(1, 30), st.integers(1, 30)))
def test_any_box_gets_the_voxels_of_the_whole(start: Zyx, size: Zyx) -> None:
    plan = plan_of(small_checkpoint(), tile_px=32, overlap_px=8)
    box = Box.of_shape(size, start).intersect(plan.output.box)
    assert np.array_equal(render(plan, box)["em"], reference()["em"][box.slices])


@pytest.mark.parametrize(
    "hardware", [Hardware(n_threads=3), Hardware(tile_batch=2), Hardware(n_threads=2, tile_batch=5)]
)
def test_threads_and_tile_batch_do_not_change_voxels(hardware: Hardware) -> None:
    out = whole(plan_of(small_checkpoint(), tile_px=32, overlap_px=8), hardware)
    assert all(np.array_equal(out[name], reference()[name]) for name in ("em", "uncertainty"))


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"samples": 3}, {"steps": 3}, {"overlap_px": 4}, {"precision": "bfloat16"}]
)
def test_what_is_in_the_identity_changes_voxels(change: dict[str, object]) -> None:
    plan = plan_of(small_checkpoint(), tile_px=32, **{"overlap_px": 8, **change})
    before = plan_of(small_checkpoint(), tile_px=32, overlap_px=8)
    assert plan.identity() != before.identity()
    assert not np.array_equal(whole(plan)["em"], reference()["em"])


@pytest.mark.parametrize("model", ["linear", "cubic", "small"])
def test_measured_sections_pass_bit_for_bit_with_uncertainty_0(model: str) -> None:
    out = whole(plan_of(small_checkpoint() if model == "small" else model))
    assert np.array_equal(out["em"][::3], SECTIONS)
    if model == "small":
        assert not out["uncertainty"][::3].any()
        assert out["uncertainty"][1::3].mean() > 1


@pytest.mark.parametrize(("model", "order"), [("linear", 1), ("cubic", 3)])
@pytest.mark.parametrize("r", [2, 3, 7])
def test_interpolation_equals_scipy_of_the_whole_volume(model: str, order: int, r: int) -> None:
    plan = plan_of(model, r=r)
    z, y, x = np.meshgrid(np.arange(plan.gaps.n_planes) / r, np.arange(53), np.arange(71), indexing="ij")
    expected = map_coordinates(SECTIONS.astype(float), [z, y, x], order=order, mode="mirror")
    ours = whole(plan)["em"]
    if order == 1:
        assert np.array_equal(ours, to_grey(expected))
    assert np.abs(ours - np.clip(expected, 0, 255)).max() < 0.5 + 2e-3


class _Affine:
    """A real small model: a plane is a fixed grey plus its noise, so that every sample is known."""

    def __init__(self, card: ModelCard) -> None:
        self.card = card

    def generate(self, gap: GapView, noise: Noise) -> torch.Tensor:
        return 100 + 10 * noise(0)


def test_mean_and_spread_are_those_of_the_samples_of_the_voxel() -> None:
    plan = plan_of(small_checkpoint(), tile_px=32, overlap_px=8, samples=5)
    out = render_block(plan, _Affine(plan.card), SECTIONS, plan.output.box)
    planes = torch.tensor([p for p in range(13) if p % 3])
    samples = torch.stack(
        [100 + 10 * voxel_noise(0, k, planes, (0, 0), SHAPE[1:]) for k in range(5)]
    ).double()
    generated = planes.numpy()
    assert np.abs(out["em"][generated] - samples.mean(0).numpy()).max() < 0.5 + 2e-3
    squares = (samples - samples.mean(0)).square().sum(0)
    deviations = (squares / (5 - 1 / 5)).sqrt().numpy()
    stored = out["uncertainty"][generated] * UNCERTAINTY_STEP
    assert np.abs(stored - deviations).max() < UNCERTAINTY_STEP * 0.51


def test_blending_tiles_that_agree_does_not_shrink_the_spread() -> None:
    """Averaging two independent draws in an overlap would: to 0.71 of the deviation."""
    plan = plan_of(small_checkpoint(), tile_px=32, overlap_px=16, samples=8)
    out = render_block(plan, _Affine(plan.card), SECTIONS, plan.output.box)
    spread = out["uncertainty"][1::3].astype(float).mean(axis=(0, 1)) * UNCERTAINTY_STEP
    assert np.abs(spread[16:32].mean() / spread[:16].mean() - 1) < 0.05


def test_a_rejected_section_is_bridged_and_not_copied() -> None:
    plan = plan_of("linear", rejected=(2,))
    out = whole(plan)["em"]
    expected = to_grey(SECTIONS[1] + (SECTIONS[3].astype(float) - SECTIONS[1]) * 0.5)
    assert np.array_equal(out[6], expected)
    assert np.array_equal(out[[0, 3, 9, 12]], SECTIONS[[0, 1, 3, 4]])


def test_planes_are_announced_as_they_are_done() -> None:
    plan = plan_of("linear")
    heard: list[int] = []
    box = Box((1, 0, 0), (8, 53, 71))
    render_block(plan, model_of(plan), SECTIONS[plan.source_box(box).slices], box, on_planes=heard.append)
    assert heard == [2, 2, 1]


class _Broken:
    """A real small model whose planes hold one number that is no grey level."""

    def __init__(self, card: ModelCard, value: float) -> None:
        self.card = card
        self.value = value

    def generate(self, gap: GapView, noise: Noise) -> torch.Tensor:
        planes = torch.full((len(gap.sections), len(gap.positions), *gap.sections.shape[2:]), 100.0)
        planes[0, 0, 3, 5] = self.value
        return planes


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("samples", [0, 1, 2])
def test_planes_that_are_not_finite_fail_their_block(samples: int, value: float) -> None:
    """Without samples: linear, whose tiles go straight to their place."""
    table = {"tile_px": 32, "overlap_px": 8, "samples": samples}
    plan = plan_of(small_checkpoint(), **table) if samples else plan_of("linear")
    with pytest.raises(DataError, match="not finite"):
        render_block(plan, _Broken(plan.card, value), SECTIONS, plan.output.box)
