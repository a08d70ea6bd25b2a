"""The device of a run: auto is what the machine has, said in one line, and part of no identity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_volumes import VOXEL_SIZE, Ended

from vemdiffuse_pipe import config
from vemdiffuse_pipe.cluster.binding import VISIBLE, bind_gpu
from vemdiffuse_pipe.config import RunTable
from vemdiffuse_pipe.models.device import device_here
from vemdiffuse_pipe.output.preparation import prepare

HERE = "cuda" if torch.cuda.is_available() else "cpu"


def test_auto_is_the_device_that_the_machine_has() -> None:
    assert device_here("auto") == HERE
    assert device_here("cuda:1") == "cuda:1"


def test_reconstruct_says_in_one_line_which_device_auto_is(
    stack: Path, vemdiffuse: Callable[..., Ended]
) -> None:
    ended = vemdiffuse("reconstruct", stack.name, "out.zarr", *VOXEL_SIZE, "--model", "linear")
    assert [line for line in ended.stderr.splitlines() if line.startswith(f"device: {HERE}")]
    assert 'device = "auto"' in Path("out.zarr.toml").read_text()


def test_a_device_that_is_not_there_starts_nothing(stack: Path, vemdiffuse: Callable[..., Ended]) -> None:
    arguments = ("reconstruct", stack.name, "out.zarr", *VOXEL_SIZE, "--device", "cuda:77")
    ended = vemdiffuse(*arguments, "--model", "linear")
    assert ended.code == 2
    assert "cuda:77" in ended.stderr
    assert not Path("out.zarr").exists()


def test_the_device_is_no_part_of_the_identity_where_nothing_is_left_to_it(stack: Path) -> None:
    """It chooses precision and tiles where the run file leaves them open."""
    tables = {
        "source": {"url": str(stack), "voxel_size_nm": (50, 4.6, 4.6)},
        "output": {"url": "out.zarr"},
        "model": {"precision": "float32", "overlap_px": 32},
    }
    plans = [prepare(config.parse({**tables, "run": {"device": d}}))[1] for d in ("auto", "cpu", "cuda")]
    assert len({str(plan.identity()) for plan in plans}) == 1


@pytest.mark.parametrize(("before", "after"), [({}, {VISIBLE: "1"}), ({VISIBLE: ""}, {VISIBLE: ""})])
def test_auto_leaves_a_worker_its_own_gpu_or_none_where_none_is_assigned(
    before: dict[str, str], after: dict[str, str]
) -> None:
    bind_gpu("1", RunTable(engine="local"), None, before)
    assert before == after
