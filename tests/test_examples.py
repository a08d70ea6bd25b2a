"""Every function of the top level has an example in its docstring, and the examples run."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import numpy as np
import pytest
import tifffile

import vemdiffuse_pipe
from vemdiffuse_pipe.phantom import phantom

SIZE = "voxel_size_nm = [50.0, 4.6, 4.6]"
FILES = {
    "linear.toml": f"""
[source]
url = "stack.tif"
{SIZE}
[output]
url = "linear.zarr"
[model]
name = "linear"
[cluster]
memory_gb = 4.0
""",
    "train.toml": """
[source]
url = "stack_to_train_on.tif"
voxel_size_nm = [12.0, 4.0, 4.0]
[data]
axis = "yx"
ratio = 3
crop_px = [8, 16]
[train]
steps = 1
batch_size = 1
[output]
folder = "trained"
name = "mine"
""",
    "compare.toml": """
[truth]
url = "truth.tif"
voxel_size_nm = [10.0, 10.0, 10.0]
planes = [0, 21]
middle_px = 32
[compare]
ratios = [5]
degradations = ["dropped"]
results = "compared"
[[method]]
name = "linear"
model = "linear"
[[method]]
name = "cubic"
model = "cubic"
""",
}
EARLY = ("reconstruct", "run")  # others look at what these write


def functions() -> list[str]:
    """The functions of the top level, in an order in which their examples run."""
    names = [name for name in vemdiffuse_pipe.__all__ if inspect.isfunction(getattr(vemdiffuse_pipe, name))]
    return sorted(names, key=lambda name: (name not in EARLY, name))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with small volumes, files for them, and an sbatch that runs nothing."""
    texture = phantom((23, 48, 40), 1)
    for name, voxels in {
        "stack.tif": texture[::11],
        "truth.tif": texture,
        "sections.tif": np.resize(texture, (9, 72, 104)),
        "stack_to_train_on.tif": texture[:10],
        "raw.tif": phantom((1, 160, 160), 2)[0],
        "clean.tif": phantom((1, 160, 160), 2)[0],
    }.items():
        tifffile.imwrite(tmp_path / name, np.ascontiguousarray(voxels), photometric="minisblack")
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text("#!/bin/sh\necho Submitted batch job 1\n")
    sbatch.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(sbatch.parent), prepend=":")
    return tmp_path


def test_the_example_of_every_function_runs(folder: Path) -> None:
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    failures: list[str] = []
    for name in functions():
        (test,) = finder.find(getattr(vemdiffuse_pipe, name), name, globs={})
        assert test.examples, f"{name} has no example"
        report: list[str] = []
        runner.run(test, out=report.append)
        failures += report
    assert not failures, "".join(failures)


def test_every_command_is_a_function_of_the_top_level() -> None:
    from vemdiffuse_pipe.cli.entry import COMMANDS

    programs = {"demo", "init", "models", "plan", "schema", "view"}  # show or print; plan: `plan_run`
    assert COMMANDS.keys() - programs <= set(vemdiffuse_pipe.__all__)
