"""Wrong input: one clear sentence on stderr, exit code 2 (1 midway), nothing created or damaged."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from small_volumes import VOXEL_SIZE, Ended, sections

Vemdiffuse = Callable[..., Ended]


def refused(ended: Ended, *said: str, code: int = 2) -> None:
    """Asserts that the command ended in one sentence that says all of `said`."""
    assert ended.code == code, ended
    assert not ended.stdout
    sentence = ended.stderr.strip()
    assert len(sentence.splitlines()) == 1, ended.stderr
    assert sentence.startswith("vemdiffuse: ")
    assert "Traceback" not in sentence
    assert "bug" not in sentence
    for words in said:
        assert words in sentence, sentence


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder, with the bytes of files."""
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def write_array(shape: tuple[int, ...], dtype: str) -> None:
    tifffile.imwrite("bad", np.ones(shape, dtype), photometric="minisblack")


def write_text() -> None:
    Path("bad").write_text("this is not a volume")


def write_folder() -> None:
    Path("bad").mkdir()
    Path("bad/notes.docx").write_text("nor is this")


def write_flat_zarr() -> None:
    zarr.create_array("bad", shape=(32, 32), chunks=(16, 16), dtype="uint8")


def write_metadata(**changes: object) -> None:
    """A zarr array whose metadata claims what it likes."""
    zarr.create_array("bad", shape=(8, 16, 16), chunks=(8, 8, 8), dtype="uint8")
    document = json.loads(Path("bad/zarr.json").read_text())
    Path("bad/zarr.json").write_text(json.dumps({**document, **changes}))


def write_endless_json() -> None:
    Path("bad").mkdir()
    with Path("bad/zarr.json").open("wb") as file:
        file.truncate(100 << 20)


def write_torn_json() -> None:
    write_metadata()
    text = Path("bad/zarr.json").read_text()
    Path("bad/zarr.json").write_text(text[: len(text) // 2])


def write_regular_grid(chunk_shape: list[int]) -> None:
    write_metadata(chunk_grid={"name": "regular", "configuration": {"chunk_shape": chunk_shape}})


SOURCES = {
    "missing path": (lambda: None, ["does not exist"]),
    "not a volume": (write_text, ["no format that we know", "OME-Zarr"]),
    "unknown format": (write_folder, ["notes.docx", "OME-Zarr"]),
    "2D TIFF": (lambda: write_array((32, 32), "uint8"), ["bad"]),
    "2D zarr": (write_flat_zarr, ["bad"]),
    "64-bit integers": (lambda: write_array((4, 32, 32), "int64"), ["int64", "uint8"]),
    "64-bit floats": (lambda: write_array((4, 32, 32), "float64"), ["float64", "uint8"]),
    "16-bit without a window": (lambda: write_array((4, 32, 32), "uint16"), ["--window LOW HIGH"]),
    "shape 2^62": (lambda: write_metadata(shape=[2**62, 16, 16]), ["bad"]),
    "2^60 voxels a side": (lambda: write_metadata(shape=[2**60, 2**60, 2**60]), ["bad"]),
    "negative chunks": (lambda: write_regular_grid([-8, 8, 8]), ["bad"]),
    "chunks of 2^62": (lambda: write_regular_grid([8, 2**31, 2**31]), ["bad"]),
    "100 MB of JSON": (write_endless_json, ["larger than 16 MB"]),
    "torn metadata": (write_torn_json, ["is not JSON"]),
}


@pytest.mark.parametrize("case", SOURCES)
def test_a_source_that_cannot_be_used_is_refused(here: Path, vemdiffuse: Vemdiffuse, case: str) -> None:
    write, said = SOURCES[case]
    write()
    before = contents(here)
    refused(vemdiffuse("reconstruct", "bad", "out.zarr", *VOXEL_SIZE, "--model", "linear"), *said)
    assert contents(here) == before


def test_a_missing_voxel_size_says_how_to_give_it(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    refused(vemdiffuse("reconstruct", stack, "out.zarr", "--model", "linear"), "--voxel-size Z Y X")
    assert list(stack.parent.iterdir()) == [stack]


OPTIONS = {
    "isotropic": (["--voxel-size", "11", "10", "10"], ["dz / dxy is 1.1", "at least 1.5"]),
    "tie": (["--voxel-size", "50", "4", "4"], ["--ratio 12", "--ratio 13"]),
    "ratio 1": ([*VOXEL_SIZE, "--ratio", "1"], ["ratio"]),
    "negative voxel size": (["--voxel-size", "50", "-10", "10"], ["voxel_size_nm"]),
    "voxel size nan": (["--voxel-size", "50", "nan", "10"], ["voxel_size_nm"]),
    "no such model": ([*VOXEL_SIZE, "--model", "quadratic"], ["quadratic", "known: linear"]),
    "samples of interpolation": ([*VOXEL_SIZE, "--samples", "4"], ["draws no samples"]),
    "zero workers": ([*VOXEL_SIZE, "--workers", "0"], ["workers"]),
    "half a shard": ([*VOXEL_SIZE, "--block-shape", "3", "5", "7"], ["block_shape", "nearest"]),
    "a window for uint8": ([*VOXEL_SIZE, "--window", "0", "9"], ["window"]),
    "no such level": ([*VOXEL_SIZE, "--level", "7"], ["level"]),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_that_cannot_be_used_are_refused(stack: Path, vemdiffuse: Vemdiffuse, case: str) -> None:
    options, said = OPTIONS[case]
    model = [] if "--model" in options else ["--model", "linear"]
    refused(vemdiffuse("reconstruct", stack, "out.zarr", *options, *model), *said)
    assert list(stack.parent.iterdir()) == [stack]


@pytest.mark.parametrize("option", ["--ratio", "--samples", "--seed"])
def test_words_in_place_of_numbers_are_refused(stack: Path, vemdiffuse: Vemdiffuse, option: str) -> None:
    ended = vemdiffuse("reconstruct", stack, "out.zarr", option, "many")
    assert ended.code == 2
    assert "'many' is not a valid" in ended.stderr
    assert list(stack.parent.iterdir()) == [stack]


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": [1.0] * 1000}))


def write_torch_zip(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + bytes(1000))


def write_truncated(path: Path) -> None:
    header = json.dumps(
        {"__metadata__": {"card": "{}"}, "w": {"dtype": "F16", "shape": [9], "data_offsets": [0, 18]}}
    )
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(10))


def write_short(path: Path) -> None:
    path.write_bytes((10**6).to_bytes(8, "little") + b'{"w"')


CHECKPOINTS = {
    "pickle": (write_pickle, ["pickle", "safetensors"]),
    "zip of pickles": (write_torch_zip, ["pickle", "safetensors"]),
    "truncated weights": (write_truncated, ["truncated"]),
    "truncated header": (write_short, ["truncated"]),
    "empty": (Path.touch, ["safetensors"]),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_checkpoint_that_cannot_be_used_is_refused(stack: Path, vemdiffuse: Vemdiffuse, case: str) -> None:
    write, said = CHECKPOINTS[case]
    checkpoint = stack.parent / "model.safetensors"
    write(checkpoint)
    refused(vemdiffuse("reconstruct", stack, "out.zarr", *VOXEL_SIZE, "--model", checkpoint), *said)
    assert sorted(stack.parent.iterdir()) == sorted([stack, checkpoint])


RUN_FILES = {
    "unknown key": (
        '[source]\nurl = "stack.tif"\nvoxel_sise_nm = [1, 1, 1]\n',
        ["did you mean voxel_size_nm?"],
    ),
    "unknown table": ('[sauce]\nurl = "stack.tif"\n', ["did you mean source?"]),
    "no output": ('[source]\nurl = "stack.tif"\n', ["output is missing"]),
    "wrong type": ('[source]\nurl = "stack.tif"\n[output]\nurl = 7\n', ["output.url"]),
    "short region": (
        '[source]\nurl = "stack.tif"\nregion = [[0, 0], [4, 9, 9]]\n[output]\nurl = "out.zarr"\n',
        ["source.region has too few numbers in its part 1: 2 of at least 3"],
    ),
    "short window": (
        '[source]\nurl = "stack.tif"\nwindow = [0]\n[output]\nurl = "out.zarr"\n',
        ["source.window has too few numbers: 1 of at least 2"],
    ),
    "not TOML": ("[source\n", ["not TOML"]),
}


@pytest.mark.parametrize("case", RUN_FILES)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_run_file_that_cannot_be_used_is_refused(
    stack: Path, vemdiffuse: Vemdiffuse, case: str, command: str
) -> None:
    text, said = RUN_FILES[case]
    Path("run.toml").write_text(text)
    refused(vemdiffuse(command, "run.toml"), *said)
    assert sorted(p.name for p in stack.parent.iterdir()) == ["run.toml", "stack.tif"]


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_missing_run_file_says_how_to_make_one(here: Path, vemdiffuse: Vemdiffuse, command: str) -> None:
    refused(vemdiffuse(command, "run.toml"), "vemdiffuse init SOURCE OUTPUT")


def test_an_output_below_a_file_is_refused(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    before = contents(stack.parent)
    ended = vemdiffuse("reconstruct", stack, "stack.tif/out.zarr", *VOXEL_SIZE, "--model", "linear")
    refused(ended, "stack.tif is a file")
    assert contents(stack.parent) == before


def test_an_output_on_a_read_only_disk_is_refused(stack: Path, vemdiffuse: Vemdiffuse, mount) -> None:
    mount("tmpfs", "ro")
    refused(
        vemdiffuse("reconstruct", stack, "disk/out.zarr", *VOXEL_SIZE, "--model", "linear"), "disk/out.zarr"
    )


def test_a_full_disk_stops_the_run_and_more_room_resumes_it(
    here: Path, vemdiffuse: Vemdiffuse, mount
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 256, 256), np.uint8)
    tifffile.imwrite("noise.tif", noise, photometric="minisblack")
    mount("tmpfs", "size=2m")
    arguments = ("reconstruct", "noise.tif", "disk/out.zarr", *VOXEL_SIZE, "--model", "linear")
    full = vemdiffuse(*arguments)
    assert full.code == 1
    assert "Traceback" not in full.stderr
    assert "no room is left there: make some, and rerun to resume" in full.stderr.splitlines()[-1]
    subprocess.run(["mount", "-o", "remount,size=64m", "disk"], check=True)
    assert vemdiffuse(*arguments).code == 0
    assert vemdiffuse("verify", "disk/out.zarr").code == 0


@pytest.fixture
def mount(here: Path) -> Iterator[Callable[[str, str], None]]:
    """Mounts a file system of its own at ./disk."""
    disk = here / "disk"

    def mount_at(kind: str, options: str) -> None:
        disk.mkdir()
        command = shutil.which("mount")
        done = command and subprocess.run(
            [command, "-t", kind, "-o", options, "none", disk], capture_output=True
        )
        if not done or done.returncode:
            pytest.skip("mounting a file system needs root and the capability for it")

    yield mount_at
    if disk.is_mount():
        subprocess.run(["umount", disk], check=True)


def test_the_output_of_another_run_is_refused_by_name(
    output: str, stack: Path, vemdiffuse: Vemdiffuse
) -> None:
    before = contents(stack.parent)
    ended = vemdiffuse("reconstruct", stack, output, *VOXEL_SIZE, "--model", "cubic")
    refused(ended, "model", "linear", "cubic")
    assert contents(stack.parent) == before


def test_a_folder_that_is_no_output_is_refused(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    Path("out.zarr").mkdir()
    Path("out.zarr/thesis.txt").write_text("the only copy")
    before = contents(stack.parent)
    ended = vemdiffuse("reconstruct", stack, "out.zarr", *VOXEL_SIZE, "--model", "linear")
    refused(ended, "thesis.txt")
    assert contents(stack.parent) == before


@pytest.mark.parametrize("command", ["status", "verify", "retry"])
def test_what_is_no_output_has_no_status(stack: Path, vemdiffuse: Vemdiffuse, command: str) -> None:
    before = contents(stack.parent)
    refused(vemdiffuse(command, "nowhere.zarr"), "nowhere.zarr")
    refused(vemdiffuse(command, stack), "stack.tif")
    assert contents(stack.parent) == before


def test_nan_is_refused_or_sets_its_block_aside(here: Path, vemdiffuse: Vemdiffuse) -> None:
    values = sections().astype(np.float32)
    values[1, 5, 6] = np.nan
    tifffile.imwrite("nan.tif", values, photometric="minisblack")
    arguments = (
        "reconstruct",
        "nan.tif",
        "out.zarr",
        *VOXEL_SIZE,
        "--window",
        "0",
        "255",
        "--model",
        "linear",
    )
    refused(vemdiffuse(*arguments), "NaN")
    assert not (here / "out.zarr").exists()
    ended = vemdiffuse(*arguments, "--bad-sections", "keep")
    assert ended.code == 1
    assert "NaN" in ended.stdout
    assert "vemdiffuse retry out.zarr" in ended.stdout
    assert "Traceback" not in ended.stderr
    assert "NaN" in vemdiffuse("status", "out.zarr").stdout
    assert vemdiffuse("retry", "out.zarr").code == 1


def test_evaluation_refuses_what_it_cannot_compare(output: str, stack: Path, vemdiffuse: Vemdiffuse) -> None:
    refused(vemdiffuse("evaluate", stack, stack), "--ratio R")
    refused(vemdiffuse("evaluate", output, stack), "the truth must be as large")
    refused(vemdiffuse("evaluate", "nowhere", stack), "does not exist")


def test_wrong_input_reads_the_same_from_a_shell(here: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vemdiffuse_pipe", "inspect", "nowhere"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("vemdiffuse: ")
    assert "does not exist" in done.stderr
