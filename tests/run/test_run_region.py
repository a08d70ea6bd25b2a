"""A region is a part of the whole run's output: the same voxels, at the same place in space."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from small_runs import SHAPE, position_coded, small_run, stored

from vemdiffuse_pipe import config
from vemdiffuse_pipe.config import RunFile
from vemdiffuse_pipe.errors import OutputError, PlanError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.monitor.status import status
from vemdiffuse_pipe.running.reconstruct import prepare, run
from vemdiffuse_pipe.running.verify import verify
from vemdiffuse_pipe.storage import create_sink, open_sink

DIFFUSION = {"name": "default", "samples": 2, "steps": 1, "tile_px": 32, "overlap_px": 16}
FITTED = {"name": "default", "samples": 2, "steps": 1}  # tiles that fit the whole volume, not the region
REGION = [[2, 9, 13], [5, 30, 47]]  # begins and ends inside tiles and shards
PART = Box((10, 9, 13), (21, 30, 47))


def part_of(run_file: RunFile, folder: Path, **source: object) -> RunFile:
    """The same run of a region, to an output of its own."""
    tables = run_file.model_dump()
    tables["source"] |= source
    tables["output"]["url"] = str(folder / "part.zarr")
    return config.parse(tables)


@pytest.mark.parametrize(
    "model",
    [{"name": "linear"}, {"name": "cubic"}, DIFFUSION, FITTED],
    ids=["linear", "cubic", "small tiles", "fitted tiles"],
)
def test_a_region_has_the_voxels_that_the_whole_run_has_there(tmp_path: Path, model) -> None:
    whole = small_run(tmp_path, model=model, source={"contrast": [128.0, 60.0]})
    part = part_of(whole, tmp_path, region=REGION)
    assert run(whole).exit_code == run(part).exit_code == 0
    for array in open_sink(whole.output.url).arrays:
        np.testing.assert_array_equal(stored(part, array), stored(whole, array)[PART.slices])


@pytest.mark.parametrize(("task", "name", "scale"), [("denoise", "gaussian", 1), ("superres", "cubic", 2)])
def test_a_region_of_restored_sections_has_the_voxels_of_the_whole_run(
    tmp_path: Path, task: str, name: str, scale: int
) -> None:
    whole = small_run(tmp_path, model={"task": task, "name": name}, source={"rejected_sections": [3]})
    part = part_of(whole, tmp_path, region=REGION)
    assert run(whole).exit_code == run(part).exit_code == 0
    made = Box((2, 9 * scale, 13 * scale), (5, 30 * scale, 47 * scale))
    np.testing.assert_array_equal(stored(part), stored(whole)[made.slices])
    assert open_sink(part.output.url).spec.frame == prepare(whole)[1].output.cropped(made)
    assert list(open_sink(part.output.url).provenance) == [8, 0, 8]
    assert verify(part.output.url).is_good


def test_a_region_of_one_section_is_enough_where_sections_are_restored(tmp_path: Path) -> None:
    source_with_a_corner(tmp_path)
    whole = small_run(tmp_path, model={"task": "denoise", "name": "gaussian"})
    one = prepare(part_of(whole, tmp_path, region=[[3, 0, 0], [4, 9, 9]]))[1]
    in_nm = prepare(part_of(whole, tmp_path, region_nm=[[1121, 200, -40], [1159, 271, 31]]))[1]
    assert one.part == in_nm.part == Box((3, 0, 0), (4, 9, 9))


def test_a_region_around_a_rejected_section_is_bridged_as_in_the_whole_run(tmp_path: Path) -> None:
    whole = small_run(tmp_path, source={"rejected_sections": [2, 3]})
    part = part_of(whole, tmp_path, region=REGION)
    assert run(whole).exit_code == run(part).exit_code == 0
    np.testing.assert_array_equal(stored(part), stored(whole)[PART.slices])
    provenance = open_sink(whole.output.url).provenance
    np.testing.assert_array_equal(open_sink(part.output.url).provenance, provenance[PART.slices[0]])


def test_a_region_lies_in_place(tmp_path: Path) -> None:
    whole = small_run(tmp_path)
    part = part_of(whole, tmp_path, region=REGION)
    (_, plan), (_, plan_of_part) = prepare(whole), prepare(part)
    assert plan_of_part.output == plan.output.cropped(PART)
    assert run(part).exit_code == 0
    assert open_sink(part.output.url).spec.frame == plan.output.cropped(PART)


def source_with_a_corner(folder: Path) -> str:
    """Sections of 40 x 8 x 8 nm whose first voxel begins at 1000, 200, -40 nm."""
    frame = Frame(
        SHAPE, (Fraction(40), Fraction(8), Fraction(8)), (Fraction(1000), Fraction(200), Fraction(-40))
    )
    sink = create_sink(
        folder / "source.zarr",
        frame,
        arrays=("em",),
        chunk_shape=SHAPE,
        shard_shape=SHAPE,
        attributes={},
        provenance=np.ones(SHAPE[0], np.uint8),
    )
    sink.write("em", frame.box, position_coded(SHAPE))
    return str(folder / "source.zarr" / "em")


def test_a_region_in_nanometres_holds_what_was_asked_for_and_no_section_more(tmp_path: Path) -> None:
    source_with_a_corner(tmp_path)
    # centres of sections at 1020, 1060, .. nm: 1100 is section 2, 1181 lies between 4 and 5
    region_nm = [[1100.0, 200.0 + 8 * 9 + 1, -40.0 + 8 * 13], [1181.0, 200.0 + 8 * 30 - 1, -40.0 + 8 * 47]]
    whole = small_run(tmp_path)
    part = part_of(whole, tmp_path, region_nm=region_nm)
    _, plan = prepare(part)
    assert plan.part == Box((10, 9, 13), (26, 30, 47))
    assert run(whole).exit_code == run(part).exit_code == 0
    np.testing.assert_array_equal(stored(part), stored(whole)[plan.part.slices])


def test_a_region_that_reaches_beyond_the_volume_is_cut_and_one_outside_is_refused(tmp_path: Path) -> None:
    source_with_a_corner(tmp_path)
    whole = small_run(tmp_path)
    _, plan = prepare(part_of(whole, tmp_path, region_nm=[[0, 0, -1000], [1010, 208, 5000]]))
    assert plan.part == Box((0, 0, 0), (6, 1, 53))
    for wrong in ([[0, 0, 0], [999, 300, 300]], [[1100, 300, 0], [1100, 400, 100]]):
        with pytest.raises(PlanError, match=r"the volume lies from 1000 x 200 x -40 to 1280 x 496 x 384 nm"):
            prepare(part_of(whole, tmp_path, region_nm=wrong))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"region": [[0, 0, 0], [8, 10, 10]]}, r"region \[0:8, 0:10, 0:10\] is not inside"),
        ({"region": [[3, 0, 0], [4, 10, 10]]}, "has 1 section; at least 2"),
        ({"region": [[3, 0, 0], [2, 10, 10]]}, "is not inside"),
        ({"region": REGION, "region_nm": [[0, 0, 0], [100, 100, 100]]}, "region and region_nm are both"),
    ],
)
def test_a_region_that_cannot_be_made_is_refused_by_name(tmp_path: Path, given, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        prepare(part_of(small_run(tmp_path), tmp_path, **given))


def test_an_output_goes_on_only_with_its_own_region(tmp_path: Path) -> None:
    part = part_of(small_run(tmp_path), tmp_path, region=REGION)
    assert run(part, max_blocks=1).exit_code == 1
    other = part_of(part, tmp_path, region=[[2, 9, 13], [5, 30, 48]])
    with pytest.raises(OutputError, match=r"region \[\[10, 9, 13\], \[21, 30, 47\]\] -> "):
        run(other)
    with pytest.raises(OutputError, match=r"region .* -> none"):
        run(part_of(part, tmp_path, region=None))


def test_status_and_verify_know_a_region(tmp_path: Path) -> None:
    part = part_of(small_run(tmp_path), tmp_path, region=REGION)
    assert run(part).exit_code == 0
    assert status(part.output.url).voxels_total == status(part.output.url).voxels_done == PART.n_voxels
    found = verify(part.output.url)
    assert (found.n_rendered, found.is_good) == (3, True)


def test_a_region_of_the_whole_volume_is_the_whole_run(tmp_path: Path) -> None:
    whole = small_run(tmp_path)
    assert run(whole).exit_code == 0
    again = whole.source.model_copy(update={"region": ((0, 0, 0), SHAPE)})
    assert run(whole.model_copy(update={"source": again})).n_rendered == 0
