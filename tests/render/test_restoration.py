"""Restored sections: filters equal scipy of whole sections; only the identity changes a voxel."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from vemdiffuse_pipe.config import parse
from vemdiffuse_pipe.errors import ModelError, PlanError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Frame, exact_nm
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.geometry.plane_groups import Provenance
from vemdiffuse_pipe.models.card import ModelCard, find_card
from vemdiffuse_pipe.models.checkpoint import load_model, new_network, save_checkpoint
from vemdiffuse_pipe.models.protocol import Model
from vemdiffuse_pipe.models.pssr import Pssr
from vemdiffuse_pipe.models.rcan import Rcan
from vemdiffuse_pipe.models.sizes.lean import LeanConfig
from vemdiffuse_pipe.models.sizes.plain import PssrConfig, RcanConfig
from vemdiffuse_pipe.plan.estimate import estimate
from vemdiffuse_pipe.plan.plan import Plan, make_plan
from vemdiffuse_pipe.pricing.plan_price import Speed, price
from vemdiffuse_pipe.render.block import Hardware, render_block
from vemdiffuse_pipe.volume import VolumeSpec, Voxels

ONE_THREAD = Hardware()
SHAPE = (5, 37, 53)
SECTIONS = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
FILTERS = [("denoise", "gaussian"), ("superres", "linear"), ("superres", "cubic")]
NETWORKS = {
    "small": ("lean", LeanConfig(channels=(8, 12), n_blocks=1, n_basis=4, n_embedding=16)),
    "rcan": ("rcan", RcanConfig(n_groups=1, n_blocks=2, channels=8, reduction=4, tile_px=32)),
    "pssr": ("pssr", PssrConfig(channels=(4, 6), n_blocks=(1, 1))),
}
ALL = [*FILTERS, *((task, name) for name in NETWORKS for task in ("denoise", "superres"))]
SCALE = {"denoise": 1, "superres": 2}


@cache
def small_checkpoint(task: str, name: str = "small") -> str:
    """A small network that restores, whose every weight matters, on disk."""
    torch.manual_seed(1)
    kind, sizes = NETWORKS[name]
    network = new_network(kind, sizes)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn_like(p))
    path = Path(mkdtemp()) / f"{task}.safetensors"
    card = ModelCard(
        "small", kind, "", True, True, 0, 0, 0, 2, 2, samples=2, steps=2, residual_scale=0.4,
        task=task, halo_px=SCALE[task] - 1,  # type: ignore[arg-type]
    )  # fmt: skip
    save_checkpoint(path, network, card)  # type: ignore[arg-type]
    return str(path)


def plan_of(task: str, name: str, shape: Zyx = SHAPE, **tables: dict[str, object]) -> Plan:
    tiles = {"tile_px": 32, "overlap_px": 8} if name in NETWORKS else {}
    name = small_checkpoint(task, name) if name in NETWORKS else name
    given: dict[str, dict[str, object]] = {
        "source": {"url": "memory", "contrast": [128.0, 64.0]},
        "output": {"url": "memory", "chunk_shape": [1, 1, 1], "shard_shape": [1, 1, 1]},
        "model": {"task": task, "name": name, **tiles},
        "run": {},
    }
    run_file = parse({key: {**table, **tables.get(key, {})} for key, table in given.items()})
    frame = Frame(shape, exact_nm([30, 10, 10]), exact_nm([5, 70, "8.3"]))
    spec = VolumeSpec("memory", "array", frame, "uint8", (1, 1, 1), (1, 1, 1))
    return make_plan(run_file, spec, find_card(run_file.model.name, task))


def model_of(plan: Plan) -> Model:
    s, name = plan.sampling, plan.run_file.model.name
    return load_model(name, steps=s.steps, contrast=plan.contrast, precision=s.precision, task=plan.card.task)


def render(
    plan: Plan, box: Box, hardware: Hardware = ONE_THREAD, sections: Voxels = SECTIONS
) -> dict[str, Voxels]:
    return render_block(plan, model_of(plan), sections[plan.source_box(box).slices], box, hardware)


@cache
def reference(task: str, model: str) -> dict[str, Voxels]:
    plan = plan_of(task, model)
    return render(plan, plan.output.box)


def of_whole_sections(task: str, model: str, sections: Voxels) -> NDArray[np.float64]:
    """What scipy gives for each whole section at once."""
    if task == "denoise":
        return np.stack(
            [gaussian_filter(s.astype(float), 1.0, mode="mirror", truncate=4.0) for s in sections]
        )
    y, x = (np.arange(2 * n) / 2 - 0.25 for n in sections.shape[1:])
    at, order = np.meshgrid(y, x, indexing="ij"), 1 if model == "linear" else 3
    return np.stack([map_coordinates(s.astype(float), at, order=order, mode="mirror") for s in sections])


@pytest.mark.parametrize(("task", "model"), FILTERS)
@pytest.mark.parametrize("shape", [SHAPE, (1, 3, 40), (2, 1, 2), (1, 700, 300)])
def test_a_filter_equals_scipy_of_the_whole_section(task: str, model: str, shape: Zyx) -> None:
    sections = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    plan = plan_of(task, model, shape)
    expected = of_whole_sections(task, model, sections)
    ours = render(plan, plan.output.box, sections=sections)["em"]
    if model == "linear":
        assert np.array_equal(ours, to_grey(expected))
    assert np.abs(ours - np.clip(expected, 0, 255)).max() < 0.5 + 2e-3


@pytest.mark.parametrize(("task", "model"), ALL)
@settings(max_examples=8, deadline=None)
@given(st.data())
def test_any_box_gets_the_voxels_of_the_whole(task: str, model: str, data: st.DataObject) -> None:
    plan = plan_of(task, model)
    start = data.draw(st.tuples(*(st.integers(0, n - 1) for n in plan.output.shape)))
    size = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 30), st.integers(1, 30)))
    box = Box.of_shape(size, start).intersect(plan.output.box)
    for name, voxels in render(plan, box).items():
        assert np.array_equal(voxels, reference(task, model)[name][box.slices]), (name, box)


@pytest.mark.parametrize(("task", "model"), ALL)
@settings(max_examples=4, deadline=None)
@given(block=st.tuples(st.integers(2, 5), st.integers(30, 74), st.integers(50, 106)))
def test_block_shape_does_not_change_voxels(task: str, model: str, block: Zyx) -> None:
    plan = plan_of(task, model)
    grid = BlockGrid(plan.output.shape, block)
    for box in map(grid.box, range(grid.n_blocks)):
        for name, voxels in render(plan, box).items():
            assert np.array_equal(voxels, reference(task, model)[name][box.slices]), (name, box)


@pytest.mark.parametrize(("task", "model"), ALL)
def test_threads_and_tile_batch_do_not_change_voxels(task: str, model: str) -> None:
    plan = plan_of(task, model)
    out = render(plan, plan.output.box, Hardware(n_threads=2, tile_batch=5))
    assert all(np.array_equal(out[name], voxels) for name, voxels in reference(task, model).items())


@pytest.mark.parametrize("task", SCALE)
def test_samples_of_a_restored_section_differ_and_their_spread_is_kept(task: str) -> None:
    out = reference(task, "small")
    assert out["uncertainty"].mean() > 1
    other = plan_of(task, "small", model={"seed": 1})
    assert not np.array_equal(render(other, other.output.box)["em"], out["em"])


@pytest.mark.parametrize("task", SCALE)
@pytest.mark.parametrize("name", ["rcan", "pssr"])
def test_a_plain_network_is_given_the_section_or_its_doubling_and_answers_with_the_plane(
    task: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that changes nothing leaves the section, or doubles it linearly."""
    monkeypatch.setattr(Rcan, "forward", lambda self, image: image)
    monkeypatch.setattr(Pssr, "forward", lambda self, image: image)
    plan = plan_of(task, name)
    unchanged = SECTIONS if task == "denoise" else reference("superres", "linear")["em"]
    assert np.abs(render(plan, plan.output.box)["em"].astype(int) - unchanged).max() <= 1


def test_a_plain_network_fills_no_gap(tmp_path: Path) -> None:
    card = replace(find_card(small_checkpoint("denoise", "pssr"), "denoise"), task="isotropic")
    network = new_network("pssr", NETWORKS["pssr"][1])
    save_checkpoint(tmp_path / "x.safetensors", network, card)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="restores sections, it fills no gap"):
        find_card(str(tmp_path / "x.safetensors"))


def test_superres_halves_pixels_and_leaves_the_corner_and_z_where_they_were() -> None:
    plan = plan_of("superres", "linear")
    assert plan.output == Frame((5, 74, 106), exact_nm([30, 5, 5]), plan.source.frame.corner_nm)
    assert plan_of("denoise", "gaussian").output == plan.source.frame


def test_every_plane_is_restored_and_a_rejected_one_is_missing_and_black() -> None:
    plan = plan_of("denoise", "gaussian", source={"rejected_sections": [0, 3]})
    missing, restored = Provenance.MISSING, Provenance.RESTORED
    assert plan.gaps.provenance().tolist() == [missing, restored, restored, missing, restored]
    out = render(plan, plan.output.box)["em"]
    assert not out[[0, 3]].any()
    assert np.array_equal(out[[1, 2, 4]], reference("denoise", "gaussian")["em"][[1, 2, 4]])


def test_planes_of_filled_sections_say_so() -> None:
    codes = plan_of("denoise", "gaussian").gaps.provenance([2], 0)
    assert np.flatnonzero(codes == Provenance.RESTORED_PARTLY_FILLED).tolist() == [2]


@pytest.mark.parametrize(("task", "model"), ALL)
def test_the_estimate_counts_what_is_rendered_and_read(task: str, model: str) -> None:
    plan = plan_of(task, model, run={"block_shape": [2, 20, 31]}, source={"rejected_sections": [1]})
    figures = estimate(plan)
    boxes = [plan.blocks.box(i) for i in range(plan.blocks.n_blocks)]
    n_tiles = sum(
        len(list(plan.gaps.touching(b.start[0], b.stop[0]))) * plan.lattice.n_touching(b) for b in boxes
    )
    assert figures.n_tiles_rendered == n_tiles * plan.sampling.samples
    assert figures.read_bytes == sum(plan.source_box(b).n_voxels for b in boxes)
    assert figures.flop > 0


@pytest.mark.parametrize(("task", "preview"), [("denoise", "gaussian"), ("superres", "linear")])
def test_a_preview_of_a_restoring_network_is_the_filter_of_its_task(task: str, preview: str) -> None:
    plan = plan_of(task, "small")
    speed = Speed(flop=1e9, render_s=1.0, is_gpu=False, origin="")
    found = price(plan, speed, n_workers=1, n_threads=1)
    (saving,) = [s for s in found.savings if s.change == f"model {preview}, a preview"]
    assert saving.factor == pytest.approx(estimate(plan).flop / estimate(plan_of(task, preview)).flop)


@pytest.mark.parametrize(
    ("task", "model", "table", "words"),
    [
        ("denoise", "gaussian", {"ratio": 5}, "makes no planes between sections"),
        ("denoise", "default", {}, "fills gaps, it does not denoise; choose gaussian"),
        ("superres", "default", {}, "choose linear or cubic"),
        ("denoise", "linear", {}, "does not denoise"),
        ("denoise", "gaussian", {"samples": 2}, "draws no samples"),
    ],
)
def test_what_does_not_fit_the_task_is_refused(
    task: str, model: str, table: dict[str, object], words: str
) -> None:
    with pytest.raises((PlanError, ModelError), match=words):
        plan_of(task, model, model=table)


def test_a_checkpoint_of_another_task_is_refused() -> None:
    for task in ("isotropic", "superres"):
        with pytest.raises(ModelError, match=f"trained for task denoise, asked for is {task}"):
            find_card(small_checkpoint("denoise"), task)


def test_the_task_is_in_the_identity_and_the_identity_of_gaps_is_as_it_was() -> None:
    assert plan_of("denoise", "gaussian").identity()["task"] == "denoise"
    gaps = {"source": {"url": "a"}, "output": {"url": "b"}, "model": {"name": "linear"}}
    assert (
        "task"
        not in make_plan(parse(gaps), plan_of("denoise", "gaussian").source, find_card("linear")).identity()
    )
