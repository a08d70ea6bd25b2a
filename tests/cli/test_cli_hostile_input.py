"""Input that is meant to hurt, or looks so: one sentence, exit code 2, and nothing is created."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from small_volumes import VOXEL_SIZE, Ended, sections

from vemdiffuse_pipe.models.card import WEIGHTS

Vemdiffuse = Callable[..., Ended]
LINEAR = (*VOXEL_SIZE, "--model", "linear")


def refused(ended: Ended, *said: str) -> None:
    """Asserts that nothing was started, for a reason given in one line that says all of `said`."""
    assert ended.code == 2, ended
    assert not ended.stdout
    assert ended.stderr.startswith("vemdiffuse: ")
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert len(ended.stderr) < 1000, ended.stderr
    assert "this is a bug" not in ended.stderr
    for words in said:
        assert words in ended.stderr, ended.stderr


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run_file(model: str = "linear", **run: object) -> Path:
    """A run file of ./stack.tif."""
    lines = (f"{key} = {json.dumps(value)}" for key, value in run.items())
    text = (
        '[source]\nurl = "stack.tif"\nvoxel_size_nm = [50, 10, 10]\ncontrast = [125.0, 72.0]\n'
        f'[output]\nurl = "out.zarr"\n[model]\nname = "{model}"\n[run]\n'
    )
    Path("run.toml").write_text("\n".join([text, *lines, ""]))
    return Path("run.toml")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("model", ["linear", "default"])
@pytest.mark.parametrize("device", ["cuda:99", "banana"])
def test_a_device_that_is_not_here_is_refused_before_anything_is_made(
    stack: Path, vemdiffuse: Vemdiffuse, device: str, model: str, workers: int
) -> None:
    refused(vemdiffuse("run", run_file(model, device=device, workers=workers)), "device", device)
    assert names(stack.parent) == ["run.toml", "stack.tif"]


def damaged_checkpoint() -> Path:
    """The embedded model with one bit of its weights flipped."""
    data = bytearray((WEIGHTS / "default.safetensors").read_bytes())
    data[-7] ^= 1
    Path("model.safetensors").write_bytes(data)
    return Path("model.safetensors")


def foreign_checkpoint() -> Path:
    """The embedded model, of another kind by its card."""
    data = (WEIGHTS / "default.safetensors").read_bytes()
    Path("model.safetensors").write_bytes(
        data.replace(b'\\"estimator-sampler\\"', b'\\"estimator-stapler\\"', 1)
    )
    return Path("model.safetensors")


@pytest.mark.parametrize(
    ("make", "said"), [(damaged_checkpoint, "sha256"), (foreign_checkpoint, "'estimator-stapler'")]
)
def test_a_model_that_cannot_be_loaded_leaves_no_output_behind(
    stack: Path, vemdiffuse: Vemdiffuse, make: Callable[[], Path], said: str
) -> None:
    model = make()
    refused(vemdiffuse("reconstruct", stack, "out.zarr", *VOXEL_SIZE, "--model", model), said)
    refused(vemdiffuse("run", run_file(str(model))), said)
    refused(vemdiffuse("run", run_file(str(model), workers=2)), said)
    assert names(stack.parent) == ["model.safetensors", "run.toml", "stack.tif"]


@pytest.mark.parametrize("model", ["a" * 400, "~nobody-of-this-name/m.safetensors", "."])
def test_a_model_by_an_impossible_name_is_refused(stack: Path, vemdiffuse: Vemdiffuse, model: str) -> None:
    refused(vemdiffuse("reconstruct", stack, "out.zarr", *VOXEL_SIZE, "--model", model), "no model")
    assert names(stack.parent) == ["stack.tif"]


@pytest.mark.parametrize("size", [("1e300", "1", "1"), ("1e300", "1e-300", "1e-300"), ("9000", "1", "1")])
def test_init_refuses_voxels_that_nobody_can_have(
    stack: Path, vemdiffuse: Vemdiffuse, size: tuple[str, ...]
) -> None:
    refused(vemdiffuse("init", stack, "out.zarr", "--voxel-size", *size))


@pytest.mark.parametrize("window", [("0", "inf"), ("nan", "9"), ("-1e308", "1e308")])
def test_a_window_of_no_finite_width_is_refused(
    here: Path, vemdiffuse: Vemdiffuse, window: tuple[str, str]
) -> None:
    tifffile.imwrite("stack.tif", sections().astype(np.uint16), photometric="minisblack")
    refused(vemdiffuse("reconstruct", "stack.tif", "out.zarr", *LINEAR, "--window", *window), "window")
    assert names(here) == ["stack.tif"]


def test_a_model_that_gives_no_numbers_has_its_blocks_failed(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    """A contrast that is finite and as good as none: what the network sees is infinite."""
    path = run_file("default")
    path.write_text(path.read_text().replace("72.0", "1e-300"))
    ended = vemdiffuse("run", path)
    assert ended.code == 1, ended
    assert "failed after" in ended.stdout
    assert "not finite" in ended.stdout


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_run_file_that_never_ends_is_refused(here: Path, vemdiffuse: Vemdiffuse, command: str) -> None:
    os.mkfifo("pipe.toml")
    refused(vemdiffuse(command, "pipe.toml"), "no regular file")
    refused(vemdiffuse(command, "/dev/zero"), "no regular file")
    with Path("large.toml").open("wb") as file:
        file.truncate(100 << 20)
    refused(vemdiffuse(command, "large.toml"), "larger than 1 MB")


TAMPERED: dict[str, object] = {
    "run_file": "not = [toml",
    "layout": 3,
    "identity": ["a", "list"],
    "digest": {"an": "object"},
}


@pytest.mark.parametrize("attribute", TAMPERED)
@pytest.mark.parametrize("command", ["status", "verify", "retry", "reconstruct"])
def test_an_output_that_was_tampered_with_is_refused(
    output: str, stack: Path, vemdiffuse: Vemdiffuse, attribute: str, command: str
) -> None:
    path = Path(output, "zarr.json")
    document = json.loads(path.read_text())
    document["attributes"]["vemdiffuse"][attribute] = TAMPERED[attribute]
    path.write_text(json.dumps(document))
    given = (stack, output, *LINEAR) if command == "reconstruct" else (output,)
    ended = vemdiffuse(command, *given)
    if (attribute, command) == ("layout", "status"):  # which does not need it
        assert ended.code == 0, ended
    else:
        refused(ended, output)


def test_an_output_at_an_impossible_path_is_refused(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    Path("loop").symlink_to("loop")
    for path in ("n" * 300, "n" * 240, "loop", "loop/out.zarr", "m" * 300 + "/out.zarr"):
        refused(vemdiffuse("reconstruct", stack, path, *LINEAR), path[:40])
        assert names(stack.parent) == ["loop", "stack.tif"]


@pytest.mark.parametrize("command", ["status", "verify", "retry"])
def test_what_is_no_output_is_called_so(stack: Path, vemdiffuse: Vemdiffuse, command: str) -> None:
    Path("empty").mkdir()
    Path("foreign.zarr").mkdir()
    Path("foreign.zarr/zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    refused(vemdiffuse(command, "nowhere.zarr"), "nowhere.zarr does not exist")
    for path in ("empty", "foreign.zarr", stack):
        refused(vemdiffuse(command, path), f"{path} is no output of vemdiffuse")
    refused(vemdiffuse(command, "n" * 300))
