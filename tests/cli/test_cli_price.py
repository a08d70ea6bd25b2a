"""The price of a run: measured on a block, or on paper without a network; and what is refused for it."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from small_volumes import Ended
from test_cli_start import imported_by

from vemdiffuse_pipe import config
from vemdiffuse_pipe.pricing.run_price import limit_not_checked

ROOT = Path(__file__).parents[2]
Vemdiffuse = Callable[..., Ended]

ASSUMED = """
[source]
url = "s3://nowhere-at-all/em"
[source.assume]
shape = [100, 4096, 4096]
voxel_size_nm = [40.0, 8.0, 8.0]
chunk_shape = [16, 512, 512]
dtype = "uint8"
[output]
url = "out.zarr"
[price]
tflops = 100.0
[run]
device = "cuda"
threads = 1
"""


def run_file(folder: Path, more: str = "", source: str = "stack.tif") -> str:
    """A run file for a small linear run."""
    text = f'[source]\nurl = "{source}"\nvoxel_size_nm = [50, 10, 10]\nbad_sections = "keep"\n'
    (folder / "run.toml").write_text(f'{text}[output]\nurl = "out.zarr"\n[model]\nname = "linear"\n{more}')
    return "run.toml"


def test_an_offline_plan_imports_nothing_that_reads_or_renders(here: Path) -> None:
    (here / "assumed.toml").write_text(ASSUMED)
    heavy = {"torch", "tensorstore", "dask", "distributed", "zarr", "scipy"}
    assert not imported_by("plan", "assumed.toml", "--offline", "--price") & heavy


def test_the_page_of_microns_in_the_guide_is_what_is_printed(here: Path, vemdiffuse: Vemdiffuse) -> None:
    shutil.copy(ROOT / "workflows" / "microns.toml", here)
    ended = vemdiffuse("plan", "microns.toml", "--offline", "--price")
    assert ended.code == 0, ended.stderr
    (page,) = re.findall(
        r"^```text\n(source .*?)^```$",
        (ROOT / "workflows" / "planning.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    assert page == ended.stdout.replace(f"{here}/", "")


def test_microns_offline_is_over_a_petavoxel(here: Path, vemdiffuse: Vemdiffuse) -> None:
    facts = json.loads(
        vemdiffuse("plan", ROOT / "workflows" / "microns.toml", "--offline", "--price", "--json").stdout
    )
    assert facts["estimate"]["output_voxels"] > 10**15
    assert facts["price"]["unit"] == "GPU"
    assert facts["price"]["unit_hours"] == pytest.approx(facts["estimate"]["flop"] / 100e12 / 3600)
    assert facts["seconds"] == pytest.approx(3600 * facts["price"]["unit_hours"])


def test_a_run_file_with_assumptions_says_the_same_when_written_out() -> None:
    found = config.load(ROOT / "workflows" / "microns.toml")
    assert config.parse(tomllib.loads(config.dump(found))) == found


def test_a_price_is_measured_on_a_block_and_nothing_is_written(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    facts = json.loads(vemdiffuse("plan", run_file(stack.parent), "--price", "--json").stdout)["price"]
    assert facts["unit"] == "core"
    assert facts["wall_s"] > 0
    assert "block [0:16, 0:23, 0:37], rendered on cpu" in facts["origin"]
    assert facts["n_puts"] == 1
    page = vemdiffuse("plan", "run.toml", "--price").stdout
    for row in ("price ", "traffic ", "cost ", "savings "):
        assert f"\n{row}" in page
    assert not Path("out.zarr").exists()


def test_restored_sections_have_a_price_too(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    for task, name in (("denoise", "gaussian"), ("superres", "cubic")):
        path = Path(run_file(stack.parent))
        path.write_text(path.read_text().replace('name = "linear"', f'task = "{task}"\nname = "{name}"'))
        facts = json.loads(vemdiffuse("plan", path, "--price", "--json").stdout)
        assert (facts["task"], facts["price"]["unit"]) == (task, "core")
        assert facts["price"]["unit_hours"] > 0


def test_time_is_another_word_for_price(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    assert "core-hours" in vemdiffuse("plan", run_file(stack.parent), "--time").stdout


def test_a_mask_makes_it_cheaper(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    mask = np.zeros((2, 4, 4), np.uint8)
    mask[:, :, 0] = 1
    tifffile.imwrite("mask.tif", mask, photometric="minisblack")
    tables = '[mask]\nurl = "mask.tif"\nvoxel_size_nm = [100, 60, 100]\n'
    name = run_file(stack.parent, tables)
    text = (
        Path(name)
        .read_text()
        .replace('"out.zarr"', '"out.zarr"\nchunk_shape = [16, 23, 8]\nshard_shape = [16, 23, 8]')
    )
    Path(name).write_text(text)
    facts = json.loads(vemdiffuse("plan", name, "--price", "--json").stdout)
    assert facts["price"]["n_puts"] == pytest.approx(5 * 16 / 37)  # columns 0 to 15 of 37


def test_a_mask_that_wants_nothing_has_no_price_and_says_so(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    tifffile.imwrite("mask.tif", np.zeros((2, 4, 4), np.uint8), photometric="minisblack")
    tables = '[mask]\nurl = "mask.tif"\nvoxel_size_nm = [100, 60, 100]\n'
    ended = vemdiffuse("plan", run_file(stack.parent, tables), "--price")
    assert (ended.code, ended.stdout) == (2, "")
    assert "mask.tif is 0 wherever the output is: nothing of it is wanted" in ended.stderr


def test_a_run_over_the_limit_is_printed_and_refused(here: Path, vemdiffuse: Vemdiffuse) -> None:
    (here / "assumed.toml").write_text(
        ASSUMED.replace("tflops = 100.0", "tflops = 100.0\nmax_gpu_hours = 0.001")
    )
    ended = vemdiffuse("plan", "assumed.toml", "--offline", "--price")
    assert ended.code == 2
    assert "GPU-hours" in ended.stdout
    assert "max_gpu_hours is 0.001: it must be" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_run_refuses_what_is_over_the_limit_before_anything_is_written(
    stack: Path, vemdiffuse: Vemdiffuse
) -> None:
    limit = '[run]\ndevice = "cuda"\n[price]\ntflops = 1e-9\nmax_gpu_hours = 1e-6\n'
    ended = vemdiffuse("run", run_file(stack.parent, limit))
    assert ended.code == 2
    assert "max_gpu_hours is 1e-06" in ended.stderr
    assert not Path("out.zarr").exists()


LIMIT = '[run]\ndevice = "cuda"\n[price]\ntflops = 1e-9\nmax_gpu_hours = 1e-6\n'
SUBMIT = ("submit", "run.toml", "--dry-run", "--scheduler", "slurm")
STARTS = (
    ("run", "run.toml"),
    ("run", "run.toml", "--part", "1/2"),
    ("run", "run.toml", "--dry-run"),
    SUBMIT,
)


@pytest.mark.parametrize("start", STARTS, ids=" ".join)
def test_every_start_of_a_run_over_the_limit_is_refused(
    stack: Path, vemdiffuse: Vemdiffuse, start: tuple[str, ...]
) -> None:
    run_file(stack.parent, f"{LIMIT}[cluster]\nmemory_gb = 4\n")
    ended = vemdiffuse(*start)
    assert (ended.code, "max_gpu_hours is 1e-06" in ended.stderr) == (2, True)
    assert not Path("out.zarr").exists()


@pytest.mark.parametrize(
    ("price", "said"),
    [
        ("max_core_hours = 5", "max_core_hours = 5 is not checked here, for nothing says how fast a core is"),
        ("max_gpu_hours = 5", ""),  # no GPU is used
        ("currency = 'EUR'", ""),
    ],
)
def test_a_limit_that_cannot_be_checked_is_said_in_one_line(
    stack: Path, vemdiffuse: Vemdiffuse, price: str, said: str
) -> None:
    run_file(stack.parent, f'[run]\ndevice = "cpu"\n[cluster]\nmemory_gb = 4\n[price]\n{price}\n')
    for start in (SUBMIT, *reversed(STARTS[:3])):
        ended = vemdiffuse(*start)
        lines = [line for line in ended.stderr.splitlines() if "max_" in line]
        assert (ended.code, len(lines)) == (0, 1 if said else 0), ended.stderr
        assert said in "".join(lines)


def test_a_limit_on_gpus_waits_for_their_speed_and_for_the_mask() -> None:
    tables = {
        "source": {"url": "stack.tif"},
        "output": {"url": "out.zarr"},
        "run": {"device": "cuda"},
        "price": {"max_gpu_hours": 7},
    }
    assert "max_gpu_hours = 7 is not checked here, for [price] has no" in limit_not_checked(
        config.parse(tables)
    )
    tables["price"] |= {"tflops": 9.0}
    assert limit_not_checked(config.parse(tables)) == ""
    tables["mask"] = {"url": "mask.tif"}
    assert "how much a mask leaves" in limit_not_checked(config.parse(tables))


def price_of(vemdiffuse: Vemdiffuse, more: str, *options: str) -> dict[str, float]:
    """The price of a large volume that is assumed, with more tables in its run file."""
    Path("assumed.toml").write_text(ASSUMED + more)
    ended = vemdiffuse("plan", "assumed.toml", "--offline", "--price", "--json", *options)
    assert ended.code == 0, ended.stderr
    facts: dict[str, float] = json.loads(ended.stdout)["price"]
    return facts


def test_the_price_is_that_of_the_cluster_that_will_be_used(here: Path, vemdiffuse: Vemdiffuse) -> None:
    cluster = "[cluster]\nmemory_gb = 4\n"
    alone = price_of(vemdiffuse, cluster)
    assert alone["n_workers"] == 1
    four = price_of(vemdiffuse, f"{cluster}max_jobs = 4\n")
    assert (four["n_workers"], four["wall_s"]) == (4, pytest.approx(alone["wall_s"] / 4))
    asked = price_of(vemdiffuse, f"{cluster}max_jobs = 4\n", "--jobs", "8")
    assert (asked["n_workers"], asked["unit_hours"]) == (8, alone["unit_hours"])
    engine = price_of(vemdiffuse, f'engine = "slurm"\n{cluster}max_jobs = 4\ngpus = 2\n')
    assert engine["n_workers"] == 8


def test_jobs_without_a_price_are_refused(here: Path, vemdiffuse: Vemdiffuse) -> None:
    (here / "assumed.toml").write_text(ASSUMED)
    ended = vemdiffuse("plan", "assumed.toml", "--offline", "--jobs", "8")
    assert (ended.code, "--jobs is for a price" in ended.stderr) == (2, True)


def test_a_limit_on_core_hours_is_for_cpus(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    ended = vemdiffuse("plan", run_file(stack.parent, "[price]\nmax_core_hours = 1e-12\n"), "--price")
    assert (ended.code, "max_core_hours is 1e-12" in ended.stderr) == (2, True)
    name = run_file(stack.parent, "[price]\nmax_gpu_hours = 1e-12\n")
    assert vemdiffuse("plan", name, "--price").code == 0


def test_what_is_assumed_is_checked_where_the_source_is_reached(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    assume = "[source.assume]\nshape = [4, 23, 37]\nvoxel_size_nm = [50.0, 10.0, 10.0]\n"
    assume += "chunk_shape = [1, 23, 37]\n"
    name = run_file(stack.parent, assume)
    assert vemdiffuse("plan", name).code == 0
    assert vemdiffuse("plan", name, "--offline").code == 0
    Path(name).write_text(Path(name).read_text().replace("shape = [4,", "shape = [5,"))
    for command in (("plan", name), ("run", name)):
        ended = vemdiffuse(*command)
        assert ended.code == 2
        assert "shape is (4, 23, 37), not (5, 23, 37)" in ended.stderr
    assert not Path("out.zarr").exists()


def test_offline_without_assumptions_or_a_speed_is_refused(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    ended = vemdiffuse("plan", run_file(stack.parent), "--offline")
    assert (ended.code, "[source.assume]" in ended.stderr) == (2, True)
    (stack.parent / "assumed.toml").write_text(ASSUMED.replace("tflops = 100.0", ""))
    ended = vemdiffuse("plan", "assumed.toml", "--offline", "--price")
    assert (ended.code, "[price] tflops" in ended.stderr) == (2, True)


def test_a_misspelt_key_of_an_assumption_names_the_nearest(here: Path, vemdiffuse: Vemdiffuse) -> None:
    (here / "assumed.toml").write_text(ASSUMED.replace("chunk_shape", "chunk_shap"))
    assert "did you mean chunk_shape?" in vemdiffuse("plan", "assumed.toml", "--offline").stderr
