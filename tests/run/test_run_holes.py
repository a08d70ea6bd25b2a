"""Missing is not black: absent and damaged chunks fail, are filled or bridged, and provenance says so."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from small_runs import SHAPE, interpolated, shard_file, small_run, stored

from vemdiffuse_pipe.config import RunFile
from vemdiffuse_pipe.errors import PlanError, SourceError
from vemdiffuse_pipe.geometry.gaps import Gaps
from vemdiffuse_pipe.geometry.plane_groups import PARTLY_FILLED, Provenance
from vemdiffuse_pipe.records.folder import records_of
from vemdiffuse_pipe.records.receipts import read_receipts
from vemdiffuse_pipe.running.reconstruct import retry, run
from vemdiffuse_pipe.running.verify import verify
from vemdiffuse_pipe.storage import open_sink, parse_address
from vemdiffuse_pipe.testing import position_coded

CHUNK = (1, 16, 16)
SECTIONS = position_coded(SHAPE)
ABSENT, DAMAGED = (2, 0, 1), (4, 1, 2)  # chunks: a part of section 2, a part of section 4
R = 5


def damaged_source(folder: Path) -> Path:
    """The small volume with one chunk absent and one cut short."""
    path = folder / "damaged.zarr"
    array = zarr.create_array(path, data=SECTIONS, chunks=CHUNK, config={"write_empty_chunks": True})
    assert array.shape == SHAPE
    chunk(path, ABSENT).unlink()
    damaged = chunk(path, DAMAGED)
    damaged.write_bytes(damaged.read_bytes()[:8])
    return path


def chunk(path: Path, index: tuple[int, int, int]) -> Path:
    return path.joinpath("c", *map(str, index))


def damaged_run(folder: Path, output: str = "out.zarr", **policies: object) -> RunFile:
    path = folder / "damaged.zarr"
    if not path.exists():
        damaged_source(folder)
    source = {"url": str(path), "voxel_size_nm": (40, 8, 8), **policies}
    return small_run(folder, source=source, output={"url": str(folder / output)})


def filled(*holes: tuple[int, int, int]) -> np.ndarray:
    """The sections with zeros where those chunks are."""
    sections = SECTIONS.copy()
    for z, y, x in holes:
        sections[z, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16] = 0
    return sections


def bridged(*lost: int) -> np.ndarray:
    """Linear interpolation of what remains of the sections."""
    kept = [u for u in range(len(SECTIONS)) if u not in lost]
    planes = np.empty(((len(SECTIONS) - 1) * R + 1, *SHAPE[1:]), np.uint8)
    for lower, upper in pairwise(kept):
        pair = interpolated(SECTIONS[[lower, upper]], (upper - lower) * R)
        planes[lower * R : upper * R + 1] = pair
    return planes


def test_by_default_blocks_with_a_hole_are_marked_failed(tmp_path: Path) -> None:
    outcome = run(damaged_run(tmp_path))
    assert outcome.exit_code == 1
    reasons = {block.reason.split(":")[0] for block in outcome.failed_blocks}
    assert reasons == {"MissingDataError", "CorruptDataError"}
    assert outcome.n_done == outcome.n_blocks - len(outcome.failed_blocks) > 0


def test_fill_reads_the_fill_value_and_receipts_and_provenance_say_where(tmp_path: Path) -> None:
    run_file = damaged_run(tmp_path, missing="fill", corrupt="fill")
    assert run(run_file).exit_code == 0
    np.testing.assert_array_equal(stored(run_file), interpolated(filled(ABSENT, DAMAGED), R))
    codes = open_sink(run_file.output.url).provenance
    is_filled = codes >= PARTLY_FILLED
    assert np.flatnonzero(is_filled).tolist() == [*range(6, 15), *range(16, 25)]
    assert codes[10] == Provenance.MEASURED_PARTLY_FILLED
    assert codes[15] == Provenance.MEASURED
    assert codes[7] == Provenance.GENERATED_PARTLY_FILLED
    digest = str(open_sink(run_file.output.url).attributes["digest"])
    receipts = [
        receipt for _, receipt in read_receipts(records_of(parse_address(run_file.output.url)), digest)
    ]
    assert {u for receipt in receipts for u in receipt.filled_sections} == {2, 4}
    untouched = [receipt for receipt in receipts if not receipt.n_voxels_filled]
    assert untouched  # only blocks that read a hole say so
    assert verify(run_file.output.url).is_good


def test_each_kind_of_hole_has_its_own_policy(tmp_path: Path) -> None:
    outcome = run(damaged_run(tmp_path, missing="fill"))
    assert {block.reason.split(":")[0] for block in outcome.failed_blocks} == {"CorruptDataError"}
    run_file = damaged_run(tmp_path, "bridged.zarr", missing="fill", corrupt="bridge")
    assert run(run_file).exit_code == 0
    assert [int(c) for c in open_sink(run_file.output.url).provenance[[10, 20]]] == [5, 3]


def test_bridge_gives_the_section_up_everywhere(tmp_path: Path) -> None:
    run_file = damaged_run(tmp_path, missing="bridge", corrupt="bridge")
    assert run(run_file).exit_code == 0
    np.testing.assert_array_equal(stored(run_file), bridged(2, 4))
    codes = open_sink(run_file.output.url).provenance
    assert np.flatnonzero(codes == Provenance.BRIDGED).tolist() == [*range(6, 15), *range(16, 25)]
    assert verify(run_file.output.url).is_good


def test_what_was_bridged_is_remembered_when_the_run_goes_on(tmp_path: Path) -> None:
    run_file = damaged_run(tmp_path, missing="bridge", corrupt="bridge")
    begun = run(run_file, max_blocks=5)
    chunk(tmp_path / "damaged.zarr", ABSENT).write_bytes(b"not absent any more")
    ended = run(run_file)
    assert (begun.n_rendered, ended.n_rendered, ended.exit_code) == (5, 19, 0)
    np.testing.assert_array_equal(stored(run_file), bridged(2, 4))
    assert retry(run_file.output.url).n_rendered == 0


def test_the_same_voxels_whatever_the_blocks_and_workers(tmp_path: Path) -> None:
    for i, table in enumerate(
        [{"block_shape": (31, 37, 53)}, {"block_shape": (8, 16, 16)}, {"workers": 2, "engine": "local"}]
    ):
        run_file = damaged_run(tmp_path, f"{i}.zarr", missing="fill", corrupt="bridge")
        run_file = run_file.model_copy(update={"run": run_file.run.model_copy(update=table)})
        assert run(run_file).exit_code == 0
        sections = filled(ABSENT)
        parts = (
            interpolated(sections[:4], R),
            interpolated(sections[[3, 5]], 2 * R),
            interpolated(sections[5:], R),
        )
        expected = np.concatenate([*(part[:-1] for part in parts[:-1]), parts[-1]])
        np.testing.assert_array_equal(stored(run_file), expected)


def test_a_bridge_that_is_too_wide_for_the_model_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    path = damaged_source(tmp_path)
    chunk(path, (3, 0, 0)).unlink()
    run_file = damaged_run(tmp_path, missing="bridge", corrupt="bridge")
    run_file = run_file.model_copy(update={"model": run_file.model.model_copy(update={"name": "default"})})
    with pytest.raises(PlanError, match="ratio 2 to 12; this volume needs 5 to 20"):
        run(run_file)
    assert not Path(run_file.output.url).exists()


@given(data=st.data(), n=st.integers(2, 9), r=st.integers(2, 6), reach=st.integers(0, 2))
def test_provenance_marks_the_planes_that_look_at_a_filled_section(
    data: st.DataObject, n: int, r: int, reach: int
) -> None:
    inner = st.sets(st.integers(1, n - 2)) if n > 2 and not reach else st.just(set[int]())
    rejected = data.draw(inner)
    kept = [u for u in range(n) if u not in rejected]
    lost = set(data.draw(st.lists(st.sampled_from(kept), max_size=3)))
    gaps = Gaps(n, r, tuple(sorted(rejected)))
    plain, codes = gaps.provenance(), gaps.provenance(lost, reach)
    for plane in range(gaps.n_planes):
        section, offset = divmod(plane, r)
        if offset == 0 and section in kept:
            looks_at = {section}
        else:
            gap = gaps.gap_above(section)
            looks_at = {gap.lower - i for i in range(reach + 1)} | {gap.upper + i for i in range(reach + 1)}
        assert codes[plane] == plain[plane] + (PARTLY_FILLED if looks_at & lost else 0)


def torn_run(folder: Path, output: str = "out.zarr", **source: object) -> RunFile:
    """Tissue of which sections 5 and 6 are black and 9 repeats 8, a chunk is absent and one is damaged."""
    path = folder / "torn.zarr"
    if not path.exists():
        sections = tissue()
        sections[5:7], sections[9] = 0, sections[8]
        zarr.create_array(path, data=sections, chunks=(1, 64, 64), config={"write_empty_chunks": True})
        chunk(path, (2, 0, 0)).unlink()
        damaged = chunk(path, (12, 1, 1))
        damaged.write_bytes(damaged.read_bytes()[:40])
    table = {"url": str(path), "voxel_size_nm": (40, 8, 8), **source}
    return small_run(
        folder,
        source=table,
        output={"url": str(folder / output), "chunk_shape": (16, 64, 64), "shard_shape": (16, 64, 64)},
        run={"block_shape": (32, 128, 128)},
    )


def tissue() -> np.ndarray:
    return np.random.default_rng(3).integers(60, 200, (16, 128, 128)).astype(np.uint8)


def test_black_and_duplicated_sections_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"5 \(black\), 6 \(black\), 9 \(duplicate of 8\); give bad_sections"
    ):
        run(torn_run(tmp_path))
    assert not (tmp_path / "out.zarr").exists()


def test_bad_sections_are_bridged_where_asked_and_provenance_shows_it(tmp_path: Path) -> None:
    run_file = torn_run(tmp_path, bad_sections="bridge", missing="bridge", corrupt="bridge")
    assert run(run_file).exit_code == 0
    codes = open_sink(run_file.output.url).provenance
    bridged_planes = np.flatnonzero(codes == Provenance.BRIDGED).tolist()
    assert bridged_planes == [*range(6, 15), *range(21, 35), *range(41, 50), *range(56, 65)]
    kept = [u for u in range(16) if u not in (2, 5, 6, 9, 12)]
    np.testing.assert_array_equal(stored(run_file)[[u * R for u in kept]], tissue()[kept])
    assert verify(run_file.output.url).is_good


def test_bad_sections_are_kept_where_asked_and_holes_still_set_blocks_aside(tmp_path: Path) -> None:
    outcome = run(torn_run(tmp_path, bad_sections="keep"))
    assert outcome.exit_code == 1
    assert {block.reason.split(":")[0] for block in outcome.failed_blocks} == {
        "MissingDataError",
        "CorruptDataError",
    }
    run_file = torn_run(tmp_path, "filled.zarr", bad_sections="bridge", missing="fill", corrupt="fill")
    assert run(run_file).exit_code == 0
    codes = open_sink(run_file.output.url).provenance
    assert [int(codes[u * R]) for u in (1, 2, 5, 6, 9, 12)] == [1, 5, 3, 3, 3, 5]


def whole_tissue(folder: Path) -> Path:
    """Tissue in chunks, all of them there."""
    path = folder / "torn.zarr"
    zarr.create_array(path, data=tissue(), chunks=(1, 64, 64), config={"write_empty_chunks": True})
    return path


def test_a_section_that_is_missing_as_a_whole_follows_the_policy_for_what_is_missing(tmp_path: Path) -> None:
    path = whole_tissue(tmp_path)
    for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        chunk(path, (7, y, x)).unlink()
    with pytest.raises(SourceError, match=r"7 \(missing\)"):
        run(torn_run(tmp_path, "refused.zarr"))
    for policy, code in (("fill", 5), ("bridge", 3)):
        run_file = torn_run(tmp_path, f"{policy}.zarr", missing=policy)
        assert run(run_file).exit_code == 0
        assert int(open_sink(run_file.output.url).provenance[7 * R]) == code


def test_what_a_repair_fills_is_noted_too(tmp_path: Path) -> None:
    path, run_file = whole_tissue(tmp_path), torn_run(tmp_path, missing="fill")
    assert run(run_file).exit_code == 0
    chunk(path, (3, 0, 0)).unlink()
    shard_file(run_file, 0, 0, 0).unlink()
    verify(run_file.output.url, repair=True)
    assert int(open_sink(run_file.output.url).provenance[3 * R]) == Provenance.MEASURED_PARTLY_FILLED
