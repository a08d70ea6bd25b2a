"""A model as a bioimage.io package: its validator accepts it, and torch alone can run it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vemdiffuse_pipe.errors import InputError, ModelError, OutputError
from vemdiffuse_pipe.exchange.bioimageio import export_bioimageio
from vemdiffuse_pipe.exchange.standalone import GapNetwork, architecture_source
from vemdiffuse_pipe.models.card import find_card, find_checkpoint
from vemdiffuse_pipe.models.checkpoint import load_model, load_network
from vemdiffuse_pipe.models.protocol import GapView

RATIO = 4
LOAD = """
import json, sys, importlib.util, numpy, torch
weights = json.load(open("bioimageio.yaml"))["weights"]["pytorch_state_dict"]
architecture = weights["architecture"]
found = importlib.util.spec_from_file_location("architecture", architecture["source"])
module = importlib.util.module_from_spec(found)
sys.modules["architecture"] = module
found.loader.exec_module(module)
network = getattr(module, architecture["callable"])(**architecture["kwargs"])
network.load_state_dict(torch.load(weights["source"], weights_only=True), strict=True)
sections, noise, planes = (torch.from_numpy(numpy.load(f"{n}.npy")) for n in ("sections", "noise", "planes"))
with torch.inference_mode():
    print(float((network(sections, noise) - planes).abs().max()), network(sections).shape == planes.shape)
print([name for name in sys.modules if name.startswith("vemdiffuse")])
"""


VALIDATE = """
import json, socket, sys
def refuse(*arguments): raise OSError("a connection")
socket.socket.connect = refuse
from bioimageio.spec import load_description
found = load_description(sys.argv[1], perform_io_checks=True)
facts = {"kind": type(found).__name__}
if facts["kind"] == "ModelDescr":
    facts["inputs"] = [str(tensor.id) for tensor in found.inputs]
    facts |= {"cite": [str(entry.doi) for entry in found.cite], "license": str(found.license)}
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default model, exported."""
    return export_bioimageio("fib25-2026-11", tmp_path_factory.mktemp("zoo") / "fib25-2026-11", ratio=RATIO)


def validated(package: Path) -> dict[str, Any]:
    """What bioimageio.spec makes of a package, every file checked, in a process without a network."""
    done = subprocess.run([sys.executable, "-c", VALIDATE, package], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_the_validator_accepts_it_with_every_file_checked(package: Path) -> None:
    found = validated(package)
    assert found["kind"] == "ModelDescr"
    assert found["inputs"] == ["sections", "noise"]
    assert {"10.1038/s41467-024-49125-z", "10.48550/arXiv.2206.00364"} <= set(found["cite"])
    assert found["license"] == "BSD-3-Clause"


@pytest.mark.slow
def test_the_validator_refuses_it_once_a_file_was_changed(package: Path, tmp_path: Path) -> None:
    for file in package.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "architecture.py").write_text("# another file\n")
    assert validated(tmp_path)["kind"] == "InvalidDescr"


@pytest.mark.slow
def test_torch_alone_runs_it_and_gives_the_test_planes(package: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LOAD], cwd=package, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, modules = done.stdout.splitlines()
    difference, same_shape = first.split()
    assert float(difference) < 0.01  # grey levels
    assert same_shape == "True"
    assert modules == "[]"


def test_it_draws_what_the_pipeline_draws_with_the_same_contrast(package: Path) -> None:
    sections, noise, planes = (
        torch.from_numpy(np.load(package / f"{name}.npy")) for name in ("sections", "noise", "planes")
    )
    contrast = (float(sections.mean()), float(sections.std()))
    model = load_model("fib25-2026-11", steps=8, contrast=contrast, precision="float32")
    positions = torch.arange(1, RATIO, dtype=torch.float64) / RATIO
    drawn = model.generate(GapView(sections, positions, RATIO), lambda step: noise)
    assert float((drawn - planes).abs().max()) < 0.01


def test_without_noise_it_gives_the_best_single_estimate() -> None:
    card = find_card("fib25-2026-11")
    network = GapNetwork(**card.sizes, ratio=3, steps=8, residual_scale=0.36)
    network.network = load_network(find_checkpoint("fib25-2026-11"), card)
    sections = torch.rand(1, 2, 16, 24) * 255
    contrast = (float(sections.mean()), float(sections.std()))
    one_pass = load_model("fib25-2026-11", steps=1, contrast=contrast, precision="float32")
    gap = GapView(sections, torch.tensor([1 / 3, 2 / 3], dtype=torch.float64), 3)
    with torch.inference_mode():
        difference = network(sections) - one_pass.generate(gap, lambda step: torch.zeros(1, 2, 16, 24))
    assert float(difference.abs().max()) < 0.05


def test_the_architecture_imports_torch_and_the_standard_library_only() -> None:
    nodes = list(ast.walk(ast.parse(architecture_source())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} - sys.stdlib_module_names == {"torch"}


@pytest.mark.slow
def test_a_zip_holds_the_same_package(package: Path, tmp_path: Path) -> None:
    target = export_bioimageio("fib25-2026-11", tmp_path / "default.zip", ratio=RATIO)
    with zipfile.ZipFile(target) as archive:
        assert sorted(archive.namelist()) == sorted(file.name for file in package.iterdir())
        assert archive.read("planes.npy") == (package / "planes.npy").read_bytes()
    assert validated(target)["kind"] == "ModelDescr"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("model", "target", "ratio", "error", "says"),
    [
        ("linear", "p", 5, ModelError, "kind interpolation"),
        ("nosuch", "p", 5, ModelError, "no model 'nosuch'"),
        ("fib25-2026-11", "p", 99, ModelError, "ratio 2 to 12, not 99"),
        ("fib25-2026-11", "there", 5, OutputError, "already"),
        ("fib25-2026-11", "nowhere/p", 5, OutputError, "cannot be written"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_nothing_is_written(
    tmp_path: Path, model: str, target: str, ratio: int, error: type[InputError], says: str
) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(error, match=says):
        export_bioimageio(model, tmp_path / target, ratio=ratio)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_a_network_that_fills_no_gaps_is_refused_by_its_task(tmp_path: Path) -> None:
    checkpoint, target = tmp_path / "denoiser.safetensors", tmp_path / "package"
    whole = find_checkpoint("fib25-2026-11").read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    card = {**json.loads(header["__metadata__"]["card"]), "task": "denoise"}
    header["__metadata__"]["card"] = json.dumps(card)
    said = json.dumps(header).encode()
    checkpoint.write_bytes(len(said).to_bytes(8, "little") + said + whole[8 + length :])
    with pytest.raises(ModelError, match="was trained for task denoise; what can be exported"):
        export_bioimageio(str(checkpoint), target)
    assert not target.exists()
