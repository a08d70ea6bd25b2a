"""Small volumes on disk, and the command line run in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tifffile
from small_volumes import VOXEL_SIZE, Ended, sections

from vemdiffuse_pipe.cli.entry import run_command


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def stack(here: Path) -> Path:
    """A TIFF stack, which states no voxel size."""
    path = here / "stack.tif"
    tifffile.imwrite(path, sections(), photometric="minisblack")
    return path


@pytest.fixture
def vemdiffuse(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs a command line as the console script does."""

    def run(*arguments: str | Path) -> Ended:
        capsys.readouterr()
        code = run_command([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return Ended(code, out, err)

    return run


@pytest.fixture
def output(stack: Path, vemdiffuse: Callable[..., Ended]) -> str:
    """A complete output of the linear model."""
    ended = vemdiffuse("reconstruct", stack.name, "out.zarr", *VOXEL_SIZE, "--model", "linear")
    assert ended.code == 0, ended.stderr
    return "out.zarr"
