"""What commands print, for people and for machines."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import tifffile
from small_volumes import SHAPE, VOXEL_SIZE, Ended

from vemdiffuse_pipe import config
from vemdiffuse_pipe.cli.format import show_bytes, show_count, show_duration
from vemdiffuse_pipe.config import RunFile
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage import open_source

Vemdiffuse = Callable[..., Ended]


def test_init_prints_a_run_file_that_plans_as_it_is(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    text = vemdiffuse("init", stack.name, "out.zarr", *VOXEL_SIZE).stdout
    run_file = config.parse(tomllib.loads(text))
    assert run_file.source.url == "stack.tif"
    assert run_file.source.voxel_size_nm == (50, 10, 10)
    assert run_file.model.ratio == 5
    assert "# found: tiff, level 0 of 1, uint8, 4 x 23 x 37 voxels of 50 x 10 x 10 nm" in text
    Path("run.toml").write_text(text.replace('"default"', '"linear"'))
    assert vemdiffuse("plan", "run.toml").code == 0


def test_init_shows_every_key_of_a_run_file(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    text = vemdiffuse("init", stack.name, "out.zarr", *VOXEL_SIZE).stdout
    uncommented = text.replace("\n# ", "\n")
    for name, table in RunFile.model_fields.items():
        assert f"[{name}]" in text
        (kind,) = {
            kind for kind in (table.annotation, *get_args(table.annotation)) if hasattr(kind, "model_fields")
        }
        for key in kind.model_fields:
            assert f"\n{key} = " in uncommented, key


@pytest.mark.parametrize(
    "key",
    [
        "window",
        "level",
        "missing",
        "contrast",
        "region",
        "region_nm",
        "assume",
        "samples",
        "threads",
        "tflops",
    ],
)
def test_the_keys_that_init_leaves_open_parse_when_they_are_opened(
    stack: Path, vemdiffuse: Vemdiffuse, key: str
) -> None:
    text = vemdiffuse("init", stack.name, "out.zarr", *VOXEL_SIZE).stdout
    opened = text.replace(f"\n# {key} = ", f"\n{key} = ", 1)
    assert opened != text
    config.parse(tomllib.loads(opened))


def test_init_keeps_what_was_given(here: Path, vemdiffuse: Vemdiffuse) -> None:
    tifffile.imwrite("deep.tif", np.ones(SHAPE, np.uint16), photometric="minisblack")
    text = vemdiffuse(
        "init", "deep.tif", "o.zarr", *VOXEL_SIZE, "--window", "10", "900", "--level", "0"
    ).stdout
    run_file = config.parse(tomllib.loads(text))
    assert run_file.source.window == (10, 900)
    assert run_file.source.level == "0"


def test_init_leaves_a_tie_to_the_user(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    text = vemdiffuse("init", stack.name, "out.zarr", "--voxel-size", "50", "4", "4").stdout
    assert config.parse(tomllib.loads(text)).model.ratio is None
    assert "dz / dxy is 12.5, a tie" in text


def test_plan_and_dry_run_print_the_same_and_create_nothing(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    text = vemdiffuse("init", stack.name, "out.zarr", *VOXEL_SIZE).stdout
    Path("run.toml").write_text(text.replace('"default"', '"linear"'))
    planned = vemdiffuse("plan", "run.toml")
    assert planned.code == 0
    assert planned == vemdiffuse("run", "run.toml", "--dry-run")
    for words in (
        "4 x 23 x 37 voxels",
        "16 x 23 x 37 voxels",
        "FLOP a voxel",
        "of RAM",
        "renders per voxel",
        "with halos",
    ):
        assert words in planned.stdout
    assert not Path("out.zarr").exists()


def test_plan_json_is_the_plan(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    text = vemdiffuse("init", stack.name, "out.zarr", *VOXEL_SIZE).stdout
    Path("run.toml").write_text(text.replace('"default"', '"linear"'))
    facts = json.loads(vemdiffuse("plan", "run.toml", "--json", "--time").stdout)
    assert facts["output"]["shape"] == [16, 23, 37]
    assert facts["ratio"] == 5
    assert facts["seconds"] > 0
    assert facts["estimate"]["output_voxels"] == 16 * 23 * 37


def test_a_plan_that_needs_too_much_memory_is_printed_and_refused(
    stack: Path, vemdiffuse: Vemdiffuse
) -> None:
    text = vemdiffuse("init", stack.name, "out.zarr", *VOXEL_SIZE).stdout.replace('"default"', '"linear"')
    Path("run.toml").write_text(text.replace("# max_memory_gb = 8", "max_memory_gb = 0.001"))
    for command in (("plan", "run.toml"), ("run", "run.toml", "--dry-run")):
        ended = vemdiffuse(*command)
        assert ended.code == 2
        assert "16 x 23 x 37" in ended.stdout
        assert "GB of memory" in ended.stderr
    assert vemdiffuse("run", "run.toml").code == 2
    assert not Path("out.zarr").exists()


def test_inspect_says_what_is_stated_and_what_is_not(output: str, vemdiffuse: Vemdiffuse) -> None:
    assert "give --voxel-size Z Y X" in vemdiffuse("inspect", "stack.tif").stdout
    facts = json.loads(vemdiffuse("inspect", f"{output}/em", "--json").stdout)
    assert facts["levels"][0]["shape"] == [16, 23, 37]
    assert facts["levels"][0]["voxel_size_nm"] == [10, 10, 10]


def test_reconstruct_writes_the_run_file_that_says_the_same(output: str, vemdiffuse: Vemdiffuse) -> None:
    ended = vemdiffuse("run", f"{output}.toml", "--json")
    assert ended.code == 0
    facts = json.loads(ended.stdout)
    assert (facts["n_done"], facts["n_rendered"], facts["failed_blocks"]) == (facts["n_blocks"], 0, [])


def test_every_option_of_reconstruct_reaches_the_run_file(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    shape = ("--block-shape", "16", "23", "37")
    more = (
        "--model",
        "cubic",
        "--ratio",
        "4",
        "--seed",
        "7",
        "--format",
        "ome-zarr-0.4",
        "--samples",
        "1",
        "--steps",
        "3",
    )
    assert vemdiffuse("reconstruct", stack.name, "o.zarr", *VOXEL_SIZE, *shape, *more).code == 0
    run_file = config.load(Path("o.zarr.toml"))
    assert run_file.source.voxel_size_nm == (50, 10, 10)
    assert (run_file.model.name, run_file.model.ratio, run_file.model.seed) == ("cubic", 4, 7)
    assert (run_file.model.samples, run_file.model.steps) == (1, 3)
    assert run_file.run.block_shape == (16, 23, 37)
    assert run_file.output.format == "ome-zarr-0.4"


def test_status_of_a_complete_output(output: str, vemdiffuse: Vemdiffuse) -> None:
    assert "1 of 1 done, 0 failed" in vemdiffuse("status", output).stdout
    facts = json.loads(vemdiffuse("status", output, "--json").stdout)
    assert facts["n_blocks_done"] == facts["n_blocks"] == 1
    assert facts["identity"]["model"] == "linear"
    assert facts["failed_blocks"] == []


def test_verify_finds_a_changed_voxel(output: str, vemdiffuse: Vemdiffuse) -> None:
    assert vemdiffuse("verify", output).code == 0
    shard = next(p for p in Path(output, "em").rglob("c/*/*/*") if p.is_file())
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    shard.write_bytes(damaged)
    ended = vemdiffuse("verify", output, "--json")
    assert ended.code == 1
    assert not json.loads(ended.stdout)["is_good"]
    assert "NOT good" in vemdiffuse("verify", output).stdout


def test_evaluation_counts_generated_planes_beside_interpolation(output: str, vemdiffuse: Vemdiffuse) -> None:
    truth = open_source(f"{output}/em").read(Box.of_shape((16, 23, 37))).copy()
    truth[1::5] //= 2  # errors in generated planes
    tifffile.imwrite("truth.tif", truth, photometric="minisblack")
    ended = vemdiffuse("evaluate", output, "truth.tif", "--json")
    reports = json.loads(ended.stdout)
    assert list(reports) == ["linear", "cubic", "prediction"]
    assert reports["prediction"] == reports["linear"]  # the prediction is linear interpolation
    assert reports["prediction"]["psnr"] < 30
    assert reports["prediction"]["fsc_nm"] == pytest.approx(2 * 10 / reports["prediction"]["fsc"], rel=0.1)
    given = vemdiffuse("evaluate", f"{output}/em", "truth.tif", "--ratio", "5")
    assert "PSNR: prediction beats cubic only" in given.stdout
    assert "prediction agrees with the truth down to" in given.stdout


def test_evaluation_says_when_the_truth_is_another_volume(output: str, vemdiffuse: Vemdiffuse) -> None:
    truth = open_source(f"{output}/em").read(Box.of_shape((16, 23, 37)))[:, ::-1]
    tifffile.imwrite("truth.tif", truth, photometric="minisblack")
    ended = vemdiffuse("evaluate", output, "truth.tif")
    assert ended.code == 0
    assert "is it the same volume?" in ended.stderr


def test_models_are_listed_with_their_cards(vemdiffuse: Vemdiffuse) -> None:
    assert "cubic" in vemdiffuse("models").stdout
    cards = json.loads(vemdiffuse("models", "--json").stdout)
    assert {"linear", "cubic"} <= set(cards)
    assert cards["linear"]["max_ratio"] > 12


def test_numbers_are_said_with_units() -> None:
    assert [show_bytes(n) for n in (0, 999, 1000, 316_539_000, 999_999, 2e18)] == [
        "0 B", "999 B", "1 kB", "317 MB", "1 MB", "2 EB",
    ]  # fmt: skip
    assert [show_duration(s) for s in (0.25, 9, 119, 121, 7300, 4e6)] == [
        "0.25 s", "9 s", "119 s", "2 min", "2 h", "46 days",
    ]  # fmt: skip
    assert [show_count(n) for n in (7, 12345, 1.2345e7)] == ["7", "12,345", "1.23e+07"]


def test_a_model_is_exported_where_it_was_asked_for(here: Path, vemdiffuse: Vemdiffuse) -> None:
    ended = vemdiffuse("models", "export", "fib25-2026-11", "--bioimageio", "package")
    assert (ended.code, ended.stdout) == (0, "package\n")
    assert (here / "package" / "bioimageio.yaml").is_file()
    again = vemdiffuse("models", "export", "fib25-2026-11", "--bioimageio", "package")
    assert again.code == 2
    assert "already" in again.stderr
