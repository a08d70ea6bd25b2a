"""Restoration from the command line: run, status, verify and evaluate, as for gaps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from small_volumes import Ended

from vemdiffuse_pipe.phantom import phantom

Run = Callable[..., Ended]


@pytest.fixture
def run_file(here: Path) -> Path:
    truth = phantom((11, 40, 48), 3)
    quarters = truth.reshape(11, 20, 2, 24, 2).mean(axis=(2, 4)).astype(np.uint8)
    tifffile.imwrite(here / "truth.tif", truth, photometric="minisblack")
    tifffile.imwrite(here / "raw.tif", quarters, photometric="minisblack")
    path = here / "run.toml"
    path.write_text(
        '[source]\nurl = "raw.tif"\nvoxel_size_nm = [40.0, 8.0, 8.0]\n'
        '[output]\nurl = "out.zarr"\n[model]\ntask = "superres"\nname = "cubic"\n'
    )
    return path


def test_a_doubled_stack_is_planned_run_verified_and_held_against_the_truth(
    run_file: Path, vemdiffuse: Run
) -> None:
    assert "task    superres" in vemdiffuse("run", run_file, "--dry-run").stdout
    assert json.loads(vemdiffuse("plan", run_file, "--price", "--json").stdout)["task"] == "superres"
    assert vemdiffuse("run", run_file).code == 0
    assert vemdiffuse("verify", "out.zarr").code == 0
    seen = vemdiffuse("status", "out.zarr")
    assert (seen.code, "superres" in seen.stdout, "ratio" in seen.stdout) == (0, True, False)
    ended = vemdiffuse("evaluate", "out.zarr", "truth.tif", "--json")
    assert ended.code == 0, ended.stderr
    of_output = json.loads(ended.stdout)["prediction"]
    assert of_output["psnr"] > 28
    ended = vemdiffuse("evaluate", "out.zarr/em", "truth.tif", "--every-plane", "--json")
    assert json.loads(ended.stdout)["prediction"] == of_output


@pytest.mark.parametrize(
    ("was", "is_now", "words"),
    [
        ('"cubic"', '"default"', "fills gaps, it does not superres"),
        ('"cubic"', '"cubic"\nratio = 5', "leave ratio out"),
        ('"superres"', '"sharpen"', "model.task"),
    ],
)
def test_a_task_that_cannot_be_done_is_refused_in_a_sentence(
    run_file: Path, vemdiffuse: Run, was: str, is_now: str, words: str
) -> None:
    run_file.write_text(run_file.read_text().replace(was, is_now))
    ended = vemdiffuse("run", run_file)
    assert (ended.code, ended.stderr.count("\n")) == (2, 1)
    assert words in ended.stderr
    assert not Path("out.zarr").exists()
