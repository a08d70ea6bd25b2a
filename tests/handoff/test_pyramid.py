"""Pyramids of an output: the levels of the whole volume at once, whatever happens on the way."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run.small_runs import small_run

from vemdiffuse_pipe import open_source, run, verify
from vemdiffuse_pipe.config import RunFile
from vemdiffuse_pipe.errors import ConfigError, OutputError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.output.levels import image_of
from vemdiffuse_pipe.output.manifest import Handoff
from vemdiffuse_pipe.output.run_output import open_run_output
from vemdiffuse_pipe.records.parts import Part
from vemdiffuse_pipe.running.levels.downsample import coarser
from vemdiffuse_pipe.running.levels.pyramid import pyramid
from vemdiffuse_pipe.running.local.runner import LocalRunner

CHUNK = {"chunk_shape": (8, 8, 8), "shard_shape": (8, 16, 16)}
N_LEVELS = 4


def finished_run(folder: Path, **tables: dict[str, object]) -> RunFile:
    run_file = small_run(folder, output={**CHUNK, **tables.pop("output", {})}, **tables)
    assert run(run_file).is_complete
    return run_file


def read(url: str, nm: tuple[float, float, float] | None = None) -> np.ndarray:
    source = open_source(url, voxel_size_nm=nm, missing="fill")
    return source.read(source.spec.frame.box)


def levels_of(output: str, array: str = "em") -> list[np.ndarray]:
    z, y, x = (float(size) for size in open_source(f"{output}/{array}").spec.frame.voxel_size_nm)
    n_levels = open_source(f"{output}/{array}").spec.n_levels
    return [read(f"{output}/{array}", (z * f, y * f, x * f)) for f in (2**level for level in range(n_levels))]


def expected_levels(level_0: np.ndarray, n_levels: int) -> list[np.ndarray]:
    levels = [level_0]
    while len(levels) < n_levels:
        levels.append(coarser(levels[-1], "mean"))
    return levels


def same(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))


@pytest.mark.parametrize("output_format", ["ome-zarr-0.5", "ome-zarr-0.4"])
def test_levels_equal_the_whole_volume_made_coarser_at_once(tmp_path: Path, output_format: str) -> None:
    chunk = {"format": output_format} | ({"shard_shape": None} if output_format == "ome-zarr-0.4" else {})
    output = finished_run(tmp_path, output=chunk).output.url
    level_0 = read(f"{output}/em")
    made = pyramid(output)
    assert made.levels == {"em": N_LEVELS}
    assert same(levels_of(output), expected_levels(level_0, N_LEVELS))


def test_the_root_opens_as_the_image_with_all_levels(tmp_path: Path) -> None:
    output = finished_run(tmp_path).output.url
    before = read(output)
    assert np.array_equal(before, read(f"{output}/em"))
    pyramid(output)
    assert open_source(output).spec.n_levels == N_LEVELS
    assert np.array_equal(before, read(output))
    assert run(small_run(tmp_path, output=CHUNK)).n_rendered == 0


def test_three_parts_make_what_one_process_makes(tmp_path: Path) -> None:
    output = finished_run(tmp_path).output.url
    for part in (3, 1, 2):
        pyramid(output, runner=partial(LocalRunner, Part(part, 3)))
    assert same(levels_of(output), expected_levels(read(f"{output}/em", None), N_LEVELS))


def test_a_stopped_pyramid_shows_fewer_levels_and_is_completed_later(tmp_path: Path) -> None:
    output = finished_run(tmp_path).output.url
    stopped = pyramid(output, runner=lambda: LocalRunner(max_blocks=3))
    assert not stopped.outcome.is_complete
    assert open_source(f"{output}/em").spec.n_levels == 1
    assert pyramid(output).levels == {"em": N_LEVELS}
    assert same(levels_of(output), expected_levels(levels_of(output)[0], N_LEVELS))


@pytest.mark.slow
def test_a_pyramid_that_is_killed_is_completed_with_the_same_voxels(tmp_path: Path) -> None:
    output = finished_run(tmp_path).output.url
    command = [sys.executable, "-m", "vemdiffuse_pipe", "pyramid", output]
    for kill_after_blocks in (1, 6, 11):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        folder = Path(output) / ".vemdiffuse" / "jobs"
        while process.poll() is None and n_receipts(folder) < kill_after_blocks:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert same(levels_of(output), expected_levels(levels_of(output)[0], N_LEVELS))


def n_receipts(jobs: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in jobs.glob("*/receipts/*"))


def test_what_a_mask_leaves_out_darkens_nothing(tmp_path: Path) -> None:
    mask = np.zeros((7, 37, 53), np.uint8)
    mask[:, :20, :30] = 1
    write_volume(tmp_path / "mask.npy.zarr", mask)
    output = finished_run(tmp_path, mask={"url": str(tmp_path / "mask.npy.zarr/em")}).output.url
    level_0 = read(f"{output}/em")
    exists = stored_shards(output, level_0.shape)
    pyramid(output)
    voxels, flags = level_0, exists
    for level in levels_of(output)[1:]:
        voxels, flags = coarser(voxels, "mean", flags), np.asarray(coarser(flags, "maximum"))
        assert np.array_equal(level[flags], voxels[flags])


def write_volume(path: Path, voxels: np.ndarray) -> None:
    from vemdiffuse_pipe.geometry.frame import Frame
    from vemdiffuse_pipe.storage import create_sink
    from vemdiffuse_pipe.testing import VOXEL_SIZE_NM

    z, y, x = voxels.shape
    frame = Frame((z, y, x), VOXEL_SIZE_NM)
    codes = np.ones(z, np.uint8)
    shape: dict[str, Any] = {"chunk_shape": (z, y, x), "shard_shape": (z, y, x)}
    create_sink(path, frame, arrays=("em",), attributes={}, provenance=codes, **shape).write(
        "em", frame.box, voxels
    )


def stored_shards(output: str, shape: tuple[int, ...]) -> np.ndarray:
    exists = np.zeros(shape, np.bool_)
    for file in (Path(output) / "em" / "0" / "c").glob("*/*/*"):
        z, y, x = (int(part) for part in file.parts[-3:])
        exists[z * 8 : z * 8 + 8, y * 16 : y * 16 + 16, x * 16 : x * 16 + 16] = True
    return exists


def test_an_output_that_lacks_blocks_is_refused_with_how_many(tmp_path: Path) -> None:
    run_file = small_run(tmp_path, output=CHUNK)
    run(run_file, max_blocks=3)
    with pytest.raises(OutputError, match="lacks 21 of 24 blocks"):
        pyramid(run_file.output.url)


def test_five_levels_drift_by_less_than_half_a_grey_level() -> None:
    noise = np.random.default_rng(0).normal(119.5, 20, (64, 64, 64)).clip(0, 255).round().astype(np.uint8)
    coarse = expected_levels(noise, 6)[-1]
    assert abs(float(coarse.mean()) - float(noise.mean())) <= 0.5


def test_a_run_that_asks_for_a_pyramid_has_one_when_its_last_block_is_done(tmp_path: Path) -> None:
    run_file = small_run(tmp_path, output={**CHUNK, "pyramid": True})
    output = run_file.output.url
    assert not run(run_file, max_blocks=3).is_complete
    assert open_source(f"{output}/em").spec.n_levels == 1
    assert run(run_file, part=Part(2, 2)).is_complete
    assert same(levels_of(output), expected_levels(levels_of(output)[0], N_LEVELS))


def test_a_pyramid_in_a_format_without_levels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs an OME-Zarr format"):
        small_run(tmp_path, output={"format": "n5", "shard_shape": None, "pyramid": True})


def test_verify_notices_a_changed_voxel_of_a_level_and_repairs_it(tmp_path: Path) -> None:
    output = finished_run(tmp_path).output.url
    pyramid(output)
    before = levels_of(output)
    assert verify(output, n_rendered=0).is_good
    image = image_of(open_run_output(output), "em")
    box = Box((0, 0, 16), (8, 16, 27))
    changed = before[1][box.slices].copy()
    changed[2, 3, 4] ^= 1
    image.open_level(1).writer.write(box, changed)
    found = verify(output, n_rendered=0)
    assert not found.is_good
    assert found.wrong_in_levels == {"em/1": (box,)}
    assert verify(output, n_rendered=0, repair=True).is_good
    assert same(levels_of(output), before)


def test_verify_notices_a_manifest_that_states_another_checksum(tmp_path: Path) -> None:
    output = finished_run(tmp_path).output.url
    place = Path(output) / "handoff.json"
    right = place.read_text()
    checksum = Handoff.model_validate_json(right).arrays["em"].levels[0].checksum
    place.write_text(right.replace(checksum, "0" * 16))
    assert not verify(output, n_rendered=0).is_manifest_right
    assert verify(output, n_rendered=0, repair=True).is_good
    assert place.read_text() == right
