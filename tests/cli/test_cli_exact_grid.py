"""A run on an exact grid, from a file to outputs that others open."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy.ndimage import map_coordinates
from small_volumes import Ended

from vemdiffuse_pipe import config
from vemdiffuse_pipe.errors import OutputError
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.running.reconstruct import run
from vemdiffuse_pipe.running.verify import verify
from vemdiffuse_pipe.storage import open_sink, open_source
from vemdiffuse_pipe.testing import position_coded

Vemdiffuse = Callable[..., Ended]

SHAPE = (6, 40, 44)
SIZE = ["10", "3", "3"]  # r is 10 / 3: 17 planes, and section 3 is plane 10
EXACT = ["--model", "linear", "--grid", "exact", "--voxel-size", *SIZE]


@pytest.fixture
def stack(here: Path) -> Path:
    tifffile.imwrite(here / "stack.tif", position_coded(SHAPE), photometric="minisblack")
    return here / "stack.tif"


def expected() -> np.ndarray:
    at = np.meshgrid(np.arange(17) * 0.3, *(np.arange(n) for n in SHAPE[1:]), indexing="ij")
    return to_grey(map_coordinates(position_coded(SHAPE).astype(float), at, order=1).astype(np.float32))


@pytest.mark.parametrize("output_format", ["ome-zarr-0.5", "ome-zarr-0.4", "n5", "precomputed"])
def test_every_format_says_where_planes_of_an_exact_grid_lie(
    stack: Path, vemdiffuse: Vemdiffuse, output_format: str
) -> None:
    output = "out"
    assert vemdiffuse("reconstruct", stack, output, *EXACT, "--format", output_format).code == 0
    sink = open_sink(output)
    em = open_source(f"{output}/em")
    assert [float(v) for v in em.spec.frame.voxel_size_nm] == [3.0, 3.0, 3.0]
    assert em.spec.shape == (17, 40, 44)
    found = em.read(em.spec.frame.box)
    assert np.abs(found.astype(int) - expected()).max() <= 1
    assert np.array_equal(found[10], position_coded(SHAPE)[3])
    assert [*np.flatnonzero(sink.provenance == 1)] == [0, 10]
    assert verify(output).is_good


def test_plan_says_that_planes_are_as_far_apart_as_pixels(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    run_file = stack.with_name("run.toml")
    run_file.write_text(
        f'[source]\nurl = "{stack}"\nvoxel_size_nm = [10.0, 3.0, 3.0]\n'
        f'[output]\nurl = "{stack.parent}/out.zarr"\n[model]\nname = "linear"\ngrid = "exact"\n'
    )
    said = vemdiffuse("plan", run_file).stdout
    assert "dz / dxy is 3.333: planes every 3 nm, pixels 3 nm, isotropic; sections kept: 2 of 6" in said
    facts = json.loads(vemdiffuse("plan", run_file, "--json").stdout)
    assert (facts["ratio"], facts["anisotropy"]) == ("10/3", 1.0)
    assert run(config.load(run_file)).exit_code == 0
    whole = run_file.with_name("whole.toml")
    whole.write_text(run_file.read_text().replace("exact", "whole"))
    with pytest.raises(OutputError, match="ratio"):
        run(config.load(whole))


def test_an_exact_grid_is_evaluated_without_interpolation_of_sections_that_are_no_planes(
    stack: Path, vemdiffuse: Vemdiffuse
) -> None:
    assert vemdiffuse("reconstruct", stack, "out", *EXACT).code == 0  # planes 0 and 10 of 17 are sections
    tifffile.imwrite("truth.tif", expected(), photometric="minisblack")
    said = vemdiffuse("evaluate", "out", "truth.tif", "--json")
    assert (said.code, [*json.loads(said.stdout)]) == (0, ["prediction"])
    assert vemdiffuse("reconstruct", "stack.tif", "cut", *EXACT).code == 0
    tifffile.imwrite("short.tif", position_coded(SHAPE)[:4], photometric="minisblack")
    assert vemdiffuse("reconstruct", "short.tif", "short", *EXACT).code == 0  # both its ends are sections
    tifffile.imwrite("truth.tif", expected()[:11], photometric="minisblack")
    said = vemdiffuse("evaluate", "short", "truth.tif", "--json")
    assert [*json.loads(said.stdout)] == ["prediction"]
    assert "interpolation is not shown" in said.stderr


def test_a_whole_ratio_may_be_asked_for_either_way(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    asked = ["reconstruct", stack, "out", "--model", "linear", "--voxel-size", "9", "3", "3"]
    assert vemdiffuse(*asked).code == vemdiffuse(*asked, "--grid", "exact").code == 0
    refused = vemdiffuse(*asked[:-3], *SIZE, "--grid", "exact")
    assert refused.code == 2
    assert "ratio 3 -> 10/3" in refused.stderr


def test_a_run_on_an_exact_grid_goes_on_where_it_was(stack: Path) -> None:
    tables = {
        "source": {"url": str(stack), "voxel_size_nm": [10.0, 3.0, 3.0]},
        "output": {"url": "parts.zarr", "chunk_shape": [4, 16, 16], "shard_shape": [4, 16, 16]},
        "model": {"name": "linear", "grid": "exact"},
        "run": {"block_shape": [4, 16, 48]},
    }
    assert run(config.parse(tables), max_blocks=4).exit_code == 1
    assert run(config.parse(tables)).exit_code == 0
    made = open_source("parts.zarr/em")
    assert np.abs(made.read(made.spec.frame.box).astype(int) - expected()).max() <= 1
    assert verify("parts.zarr").is_good


def test_a_region_of_an_exact_grid_has_the_planes_of_the_whole(stack: Path) -> None:
    tables = {
        "source": {"url": str(stack), "voxel_size_nm": [10.0, 3.0, 3.0], "region": [[1, 0, 0], [4, 40, 44]]},
        "output": {"url": str(stack.parent / "part.zarr")},
        "model": {"name": "linear", "grid": "exact"},
    }
    assert run(config.parse(tables)).exit_code == 0
    part = open_source(str(stack.parent / "part.zarr" / "em"))
    planes = part.read(part.spec.frame.box)
    assert np.abs(planes.astype(int) - expected()[3:11]).max() <= 1  # section 1 is between planes 3 and 4
    assert float(part.spec.frame.centre_nm[0]) == 5 + 3 * 3


def test_a_ratio_and_an_exact_grid_are_refused_in_a_sentence(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    said = vemdiffuse("reconstruct", stack, "out.zarr", *EXACT, "--ratio", "3")
    assert said.code == 2
    assert "leave one of them out" in said.stderr
    assert not Path("out.zarr").exists()
