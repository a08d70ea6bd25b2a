"""What holds on a GPU: benchmarks/gpu.sh runs these there. `VEMDIFFUSE_DEVICE=cpu` rehearses them anywhere.

Nothing is imported but torch and what the pack of benchmarks/gpu.sh holds.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from vemdiffuse_pipe import config
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Frame, exact_nm
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.models.card import find_card
from vemdiffuse_pipe.models.noise import voxel_noise
from vemdiffuse_pipe.models.protocol import Model
from vemdiffuse_pipe.output.preparation import open_run_model
from vemdiffuse_pipe.plan.estimate import estimate
from vemdiffuse_pipe.plan.plan import Plan, make_plan
from vemdiffuse_pipe.render.block import Hardware, RenderCounts, render_block
from vemdiffuse_pipe.storage import create_sink, open_sink
from vemdiffuse_pipe.volume import VolumeSpec, Voxels

DEVICE = os.environ.get("VEMDIFFUSE_DEVICE") or ("cuda" if torch.cuda.is_available() else "")
IS_GPU = DEVICE.startswith("cuda")
SIDE, CORE, STEPS = (768, 256, 8) if IS_GPU else (48, 24, 1)
R = 4

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not DEVICE, reason="no GPU here")]
needs_gpu = pytest.mark.skipif(not IS_GPU, reason="a CPU has no memory of its own, and nothing is captured")


def textured(shape: Zyx) -> Voxels:
    """Sections with edges and noise, like tissue to a network."""
    rng = np.random.default_rng(3)
    z, y, x = np.indices(shape)
    waves = np.sign(np.sin(x / 9 + z / 3) + np.sin(y / 7 - z / 5)) * 45 + 128
    return np.clip(waves + rng.normal(0, 12, shape), 0, 255).astype(np.uint8)


SECTIONS = textured((3, SIDE, SIDE))


def plan_of(device: str = DEVICE, run: dict[str, object] | None = None, **model: object) -> Plan:
    table = {"name": "default", "ratio": R, "samples": 2, "steps": STEPS, "core_px": CORE, **model}
    tables = {
        "source": {"url": "memory", "contrast": [128.0, 47.0]},
        "output": {"url": "memory", "chunk_shape": [1, 1, 1], "shard_shape": [1, 1, 1]},
        "model": {key: value for key, value in table.items() if value is not None},
        "run": {"device": device, "capture": "off", **(run or {})},
    }
    run_file = config.parse(tables)
    frame = Frame(SECTIONS.shape, exact_nm([R, 1, 1]))
    spec = VolumeSpec("memory", "array", frame, "uint8", (1, 64, 64), (1, 64, 64))
    return make_plan(run_file, spec, find_card("default"))


def hardware_of(plan: Plan) -> Hardware:
    return Hardware(plan.run_file.run.device, tile_batch=plan.run_file.run.tile_batch)


def render(plan: Plan, box: Box | None = None, model: Model | None = None) -> dict[str, Voxels]:
    box = box or plan.output.box
    sections = SECTIONS[plan.source_box(box).slices]
    return render_block(plan, model or open_run_model(plan), sections, box, hardware_of(plan))


@cache
def on_device(precision: str) -> dict[str, Voxels]:
    return render(plan_of(precision=precision))


def apart(a: Voxels, b: Voxels) -> np.ndarray:
    """Grey levels between two volumes, generated planes alone."""
    generated = np.arange(len(a)) % R > 0
    return np.abs(a[generated].astype(int) - b[generated])


@pytest.mark.parametrize("sample", [0, 1, 5])
def test_noise_is_the_same_bits(sample: int) -> None:
    here, there = (
        voxel_noise(2**40 + 7, sample, torch.tensor([3, 2**31], device=d), (37, 2**33), (50, 61), step=9)
        for d in ("cpu", DEVICE)
    )
    assert torch.equal(here, there.cpu())


def test_float32_is_within_one_grey_level_of_a_cpu_and_nearly_always_equal() -> None:
    """Of a part of the cores: a CPU takes its time."""
    side = min(SIDE, 256)
    box = Box((0, 0, 0), (R + 1, side, side))
    expected = render(plan_of("cpu", precision="float32"), box)
    for name in ("em", "sample"):
        differences = apart(expected[name], on_device("float32")[name][box.slices])
        assert differences.max() <= 1
        assert (differences == 0).mean() > 0.999


def test_bfloat16_is_near_float32(record_property: pytest.FixtureRequest) -> None:
    error = apart(on_device("float32")["em"], on_device("bfloat16")["em"]).astype(float)
    decibel = 10 * np.log10(255**2 / max(1e-9, (error**2).mean()))
    record_property("bfloat16_against_float32_db", round(decibel, 2))  # type: ignore[operator]
    assert decibel > 35


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_blocks_and_batches_change_no_voxel_by_more_than_a_grey_level(precision: str) -> None:
    plan = plan_of(precision=precision, run={"tile_batch": 3})
    model, grid = open_run_model(plan), BlockGrid(plan.output.shape, (5, SIDE // 2 + 8, SIDE // 2))
    for index in range(grid.n_blocks):
        box = grid.box(index)
        for name, voxels in render(plan, box, model).items():
            assert apart_in(voxels, on_device(precision)[name][box.slices]) <= 1, name


def apart_in(a: Voxels, b: Voxels) -> int:
    return int(np.abs(a.astype(int) - b).max())


def test_measured_sections_pass_bit_for_bit() -> None:
    out = on_device("bfloat16")
    assert np.array_equal(out["em"][::R], SECTIONS)
    assert not out["uncertainty"][::R].any()


@needs_gpu
@pytest.mark.parametrize("core_px", [256, 768])
def test_memory_that_is_held_is_what_is_planned(core_px: int, record_property: pytest.FixtureRequest) -> None:
    plan = plan_of(precision="bfloat16", core_px=core_px)
    model = open_run_model(plan)
    torch.cuda.reset_peak_memory_stats()
    render(plan, model=model)
    held, planned = torch.cuda.max_memory_allocated(), estimate(plan).gpu_bytes
    record_property(f"gpu_bytes_{core_px}", [held, planned])  # type: ignore[operator]
    assert held < planned


@needs_gpu
def test_out_of_memory_halves_the_batch_and_goes_on() -> None:
    plan = plan_of(precision="bfloat16", run={"tile_batch": 64})
    model, counts = open_run_model(plan), RenderCounts()
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    room = torch.cuda.memory_allocated() + 6 * plan.lattice.tile_px[0] ** 2 * 600  # for some, not for all
    torch.cuda.set_per_process_memory_fraction(min(1.0, room / total))
    try:
        out = render_block(plan, model, SECTIONS, plan.output.box, hardware_of(plan), counts=counts)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert counts.n_out_of_memory > 0
    assert apart_in(out["em"], on_device("bfloat16")["em"]) <= 1


@needs_gpu
@pytest.mark.parametrize("how", ["graphs", "compile"])
def test_a_captured_network_is_within_one_grey_level(how: str) -> None:
    """Where a compiler is missing it is called as it is, which is no failure here."""
    plan = plan_of(precision="float32", run={"capture": how})
    model = open_run_model(plan)
    out = [render(plan, model=model) for _ in range(2)][-1]
    assert apart_in(out["em"], on_device("float32")["em"]) <= 1


def test_two_workers_make_what_one_makes(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder, parts in zip(folders, (["1/1"], ["1/2", "2/2"]), strict=True):
        run_file = _stored_run(folder)
        working = [subprocess.Popen([*COMMAND, str(run_file), "--part", part]) for part in parts]
        assert [worker.wait(timeout=240) for worker in working] == [0] * len(parts)
    first, second = (_stored_em(folder) for folder in folders)
    assert apart_in(first, second) <= 1


COMMAND = [sys.executable, "-m", "vemdiffuse_pipe", "run"]


def _stored_run(folder: Path) -> Path:
    """A run file of its own source and output, on disk."""
    shape = SECTIONS.shape
    sink = create_sink(
        folder / "source.zarr",
        Frame(shape, exact_nm([4 * R, 4, 4])),
        arrays=("em",),
        chunk_shape=shape,
        shard_shape=shape,
        attributes={},
        provenance=np.ones(len(SECTIONS), np.uint8),
    )
    sink.write("em", Box.of_shape(shape), SECTIONS)
    shard, half = [R, SIDE // 2, SIDE // 2], SIDE // 2
    tables = {
        "source": {"url": str(folder / "source.zarr" / "em"), "contrast": [128.0, 47.0]},
        "output": {"url": str(folder / "out.zarr"), "chunk_shape": shard, "shard_shape": shard},
        "model": {"name": "default", "samples": 2, "steps": STEPS, "core_px": CORE},
        "run": {"device": DEVICE, "block_shape": [R, half, half], "capture": "off"},
    }
    (folder / "run.toml").write_text(config.dump(config.parse(tables)))
    return folder / "run.toml"


def _stored_em(folder: Path) -> Voxels:
    sink = open_sink(str(folder / "out.zarr"))
    return sink.read("em", Box.of_shape(sink.spec.shape))
