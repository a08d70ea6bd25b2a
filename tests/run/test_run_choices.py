"""What a run file leaves open is chosen when an output is begun, and kept: resuming never chooses anew."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from small_runs import SHAPE, small_run, stored_sha256

from vemdiffuse_pipe import config
from vemdiffuse_pipe.config import ModelTable
from vemdiffuse_pipe.errors import OutputError
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.geometry.lattice import CoreLattice, TileLattice
from vemdiffuse_pipe.models.card import EARLIER, find_card
from vemdiffuse_pipe.models.checkpoint import new_network, save_checkpoint
from vemdiffuse_pipe.output.choices import with_stored_choices
from vemdiffuse_pipe.plan.plan import Plan, make_plan
from vemdiffuse_pipe.running.reconstruct import run
from vemdiffuse_pipe.storage import open_sink
from vemdiffuse_pipe.volume import VolumeSpec


def plan_on(device: str, model: ModelTable) -> Plan:
    frame = Frame((9, 2000, 3000), (Fraction(50), Fraction(10), Fraction(10)))
    spec = VolumeSpec("memory", "array", frame, "uint8", (1, 64, 64), (1, 64, 64))
    tables = {"source": {"url": "memory", "contrast": [128.0, 64.0]}, "output": {"url": "memory"}}
    run_file = config.parse({**tables, "run": {"device": device}}).model_copy(update={"model": model})
    return make_plan(run_file, spec, find_card(model.name, model.task))


@pytest.mark.parametrize("name", ["default", "udim", "linear"])
@pytest.mark.parametrize(("begun_on", "resumed_on"), [("cpu", "cuda"), ("cuda:1", "cpu")])
def test_who_resumes_on_another_device_has_the_plan_that_was_begun(
    name: str, begun_on: str, resumed_on: str
) -> None:
    """Begun on a CPU is as begun before there were cores."""
    left_open = ModelTable(name=name)
    begun = plan_on(begun_on, left_open)
    resumed = plan_on(resumed_on, with_stored_choices(left_open, begun.identity()))
    assert resumed.identity() == begun.identity()
    assert resumed.lattice == begun.lattice


def test_the_device_chooses_where_nothing_is_stated() -> None:
    on_cpu, on_gpu = (plan_on(device, ModelTable(name="default")) for device in ("cpu", "cuda"))
    assert isinstance(on_cpu.lattice, TileLattice)
    assert isinstance(on_gpu.lattice, CoreLattice)
    assert (on_cpu.sampling.precision, on_gpu.sampling.precision) == ("float32", "bfloat16")
    assert (on_cpu.identity()["render_version"], on_gpu.identity()["render_version"]) == (1, 2)


@pytest.mark.parametrize("stated", [{"precision": "float32"}, {"tile_px": 64}, {"core_px": 512}])
def test_what_is_stated_is_not_overruled(stated: dict[str, object]) -> None:
    """It is refused later, by name."""
    begun = plan_on("cuda", ModelTable(name="default"))
    resumed = plan_on("cuda", with_stored_choices(ModelTable(name="default", **stated), begun.identity()))
    assert resumed.identity() != begun.identity()


def test_a_damaged_choice_is_an_error_of_the_output() -> None:
    with pytest.raises(OutputError, match="core_px"):
        with_stored_choices(ModelTable(name="default"), {"core_px": "many"})


def test_an_output_begun_with_cores_is_resumed_by_a_run_file_that_does_not_state_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    card = dataclasses.replace(find_card("one-pass"), kind="regression", sampler="")
    sizes = dataclasses.replace(card.network_sizes, channels=(8,), n_blocks=1, n_embedding=8)
    save_checkpoint(tmp_path / "small.safetensors", new_network("regression", sizes), card)
    model = {"name": str(tmp_path / "small.safetensors")}
    begun = small_run(tmp_path, model={**model, "core_px": 16})
    assert run(begun, max_blocks=2).n_done == 2
    left_open = small_run(tmp_path, model=model)
    assert run(left_open).exit_code == 0
    identity = open_sink(left_open.output.url).attributes["identity"]
    assert (identity["core_px"], identity["render_version"]) == (16, 2)
    at_once = small_run(
        tmp_path, model={**model, "core_px": 16}, output={"url": str(tmp_path / "again.zarr")}
    )
    assert run(at_once).exit_code == 0
    assert stored_sha256(left_open) == stored_sha256(at_once)
    assert SHAPE[1] > 16  # more than one core


def test_an_output_of_the_earlier_default_is_resumed_with_its_weights(tmp_path: Path) -> None:
    """`default` meant them when it was begun."""
    earlier = {"name": EARLIER["default"], "samples": 1, "steps": 1}
    begun = small_run(tmp_path, model=earlier)
    assert run(begun, max_blocks=1).n_done == 1
    identity = open_sink(begun.output.url).attributes["identity"]
    table = with_stored_choices(ModelTable(name="default"), identity)
    assert table.name == EARLIER["default"]
    assert run(small_run(tmp_path, model={**earlier, "name": "default"})).exit_code == 0
    assert with_stored_choices(ModelTable(name="default"), {"model_sha256": "of another"}).name == "default"
