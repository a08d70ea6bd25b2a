"""Bad sections are found, and good ones are not: made-up stacks, stored volumes, and real stacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from vemdiffuse_pipe.storage import open_source
from vemdiffuse_pipe.survey.bad_sections import BadSection, find_bad_sections, preflight_level
from vemdiffuse_pipe.survey.sections import bad_sections
from vemdiffuse_pipe.testing import ArraySource
from vemdiffuse_pipe.volume import Voxels

DATA = Path(__file__).parents[3] / "shared" / "data"
STACKS = {
    "drosophila 1": "drosophila_vnc_sstem/stack1_raw.tif",
    "drosophila 2": "drosophila_vnc_sstem/stack2_raw.tif",
    "isbi": "isbi2012_sstem/train_raw.tif",
    "fib25 a": "fib25/volume_a_raw.tif",
    "fib25 b": "fib25/volume_b_raw.tif",
    "fib25 c": "fib25/volume_c_raw.tif",
}


def tissue(n_sections: int = 24, side: int = 200, seed: int = 1) -> Voxels:
    """Sections whose neighbours look alike, with structure at every place."""
    noise = np.random.default_rng(seed).normal(size=(n_sections, side, side))
    blobs = gaussian_filter(noise, (1, 4, 4), mode="wrap")
    return np.clip(128 + 40 * blobs / blobs.std(), 1, 255).astype(np.uint8)


TISSUE = tissue()


def found(voxels: Voxels, stored: np.ndarray | None = None, thickness: int = 5) -> list[BadSection]:
    """What is found in a stack that is given in slabs."""
    stored = np.ones(voxels.shape, bool) if stored is None else stored
    cuts = range(0, len(voxels), thickness)
    return list(bad_sections((voxels[z : z + thickness], stored[z : z + thickness]) for z in cuts))


def test_nothing_is_wrong_with_tissue() -> None:
    assert found(TISSUE) == []


@pytest.mark.parametrize(
    ("grey", "reason"), [(0, "black"), (3, "black"), (128, "constant"), (255, "constant")]
)
def test_a_section_of_one_grey_level_is_found(grey: int, reason: str) -> None:
    voxels = TISSUE.copy()
    voxels[7] = grey
    assert found(voxels) == [BadSection(7, reason)]  # type: ignore[arg-type]


def test_a_section_that_is_nearly_constant_is_found() -> None:
    voxels = TISSUE.copy()
    voxels[7] = np.random.default_rng(0).integers(196, 205, voxels[7].shape)
    assert found(voxels) == [BadSection(7, "constant")]


def test_a_repeated_section_names_the_first_of_its_kind() -> None:
    voxels = TISSUE.copy()
    voxels[8] = voxels[9] = voxels[7]
    assert found(voxels) == [BadSection(8, "duplicate", 7), BadSection(9, "duplicate", 7)]


def test_a_repetition_across_a_black_section_is_found() -> None:
    voxels = TISSUE.copy()
    voxels[8], voxels[9] = 0, voxels[7]
    assert found(voxels) == [BadSection(8, "black"), BadSection(9, "duplicate", 7)]


def test_a_section_that_is_not_stored_is_missing_and_not_black() -> None:
    stored = np.ones(TISSUE.shape, bool)
    stored[5] = False
    assert found(np.where(stored, TISSUE, 0).astype(np.uint8), stored) == [BadSection(5, "missing")]


@pytest.mark.parametrize(("columns", "is_bad"), [(64, False), (192, True)])
def test_a_section_that_is_black_in_part_is_bad_where_most_of_the_tissue_is_lost(
    columns: int, is_bad: bool
) -> None:
    voxels = TISSUE.copy()
    voxels[7, :, :columns] = 0
    assert found(voxels) == ([BadSection(7, "black")] if is_bad else [])


def test_tissue_that_ends_between_two_sections_is_not_lost() -> None:
    voxels = np.tile(TISSUE[:, :64, :160], (1, 1, 4))
    voxels[8, :, 4 * 64 :] = 0
    voxels[9:, :, 5 * 64 :] = 0
    assert found(voxels) == []


def test_a_margin_is_not_bad_on_any_side() -> None:
    voxels = np.zeros((TISSUE.shape[0] + 20, 400, 400), np.uint8)
    voxels[9:-11, 100:300, 130:330] = TISSUE
    assert found(voxels) == []
    voxels[15] = 0
    assert found(voxels) == [BadSection(15, "black")]


def test_a_margin_that_is_not_stored_is_not_missing() -> None:
    stored = np.zeros(TISSUE.shape, bool)
    stored[3:-3, 64:] = True
    assert found(np.where(stored, TISSUE, 0).astype(np.uint8), stored) == []


def test_tissue_that_tapers_off_is_not_bad() -> None:
    voxels = TISSUE.copy()
    for z in range(len(voxels)):
        voxels[z, :, : 8 * z] = 0
    assert found(voxels) == []


def test_tissue_that_ends_at_once_on_one_side_is_judged_by_what_goes_on() -> None:
    voxels = tissue(60, 192)
    voxels[20:, :, :128] = 0
    voxels[50] = 0
    assert found(voxels) == [BadSection(50, "black")]


@pytest.mark.parametrize(("n_black", "n_bad"), [(1000, 1000), (1001, 0)])
def test_two_pieces_of_tissue_far_apart_have_a_margin_between(n_black: int, n_bad: int) -> None:
    small = TISSUE[:, :20, :20]
    voxels = np.concatenate([small[:3], np.zeros((n_black, 20, 20), np.uint8), small[3:]])
    voxels[-3] = 0
    assert len(found(voxels)) == n_bad + 1


def test_a_volume_without_tissue_has_no_bad_section() -> None:
    assert found(np.zeros((9, 70, 70), np.uint8)) == []
    assert found(np.full((9, 70, 70), 200, np.uint8)) == []


@st.composite
def faults(draw: st.DrawFn) -> dict[int, str]:
    """Kinds of fault by section, none in the first or the last."""
    sections = draw(st.sets(st.integers(1, len(TISSUE) - 2), max_size=8))
    return {z: draw(st.sampled_from(["black", "constant", "missing", "duplicate"])) for z in sections}


@settings(max_examples=60, deadline=None)
@given(faults(), st.integers(1, 30), st.integers(0, 40), st.integers(0, 3))
def test_what_was_done_to_a_stack_is_found_whatever_the_slabs_and_margins(
    done: dict[int, str], thickness: int, margin: int, above: int
) -> None:
    voxels, stored = damaged(TISSUE, done)
    sides = ((above, above), (margin, 0), (0, margin))
    padded, padded_stored = np.pad(voxels, sides), np.pad(stored, sides, constant_values=True)
    assert {b.section - above: b.reason for b in found(padded, padded_stored, thickness)} == done


def damaged(voxels: Voxels, done: dict[int, str]) -> tuple[Voxels, np.ndarray]:
    """A copy with faults, and what of it is stored; a duplicate repeats the last good section."""
    voxels, stored = voxels.copy(), np.ones(voxels.shape, bool)
    for z, reason in done.items():
        if reason == "duplicate":
            voxels[z] = voxels[max(g for g in range(z) if g not in done)]
        else:
            voxels[z] = {"black": 0, "constant": 200, "missing": 0}[reason]
        stored[z] = reason != "missing"
    return voxels, stored


def write_pyramid(path: Path, voxels: Voxels, factors: list[tuple[int, int, int]], **options: object) -> None:
    """OME-Zarr with a level for each factor, each the finest with voxels left out."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    datasets = []
    for level, (z, y, x) in enumerate(factors):
        array = voxels[::z, ::y, ::x]
        group.create_array(str(level), data=array, chunks=(4, 64, 64), **options)  # type: ignore[arg-type]
        scale = [40.0 * z, 8.0 * y, 8.0 * x]
        datasets.append(
            {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        )
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    image = {"axes": axes, "datasets": datasets}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}


PYRAMID = [(1, 1, 1), (1, 2, 2), (2, 4, 4)]


def test_the_coarsest_level_with_every_section_is_read_and_sections_keep_their_numbers(
    tmp_path: Path,
) -> None:
    voxels = TISSUE.copy()
    voxels[[5, 6]], voxels[13] = 0, voxels[12]
    write_pyramid(tmp_path / "em", voxels, PYRAMID)
    source = open_source(tmp_path / "em")
    assert preflight_level(source).spec.level == "1"
    assert find_bad_sections(source) == (
        BadSection(5, "black"),
        BadSection(6, "black"),
        BadSection(13, "duplicate", 12),
    )


def test_sections_are_those_of_the_level_that_is_given(tmp_path: Path) -> None:
    voxels = TISSUE.copy()
    voxels[[10, 11]] = 0
    write_pyramid(tmp_path / "em", voxels, PYRAMID)
    source = open_source(tmp_path / "em", level="2")
    assert preflight_level(source).spec.level == "2"
    assert find_bad_sections(source) == (BadSection(5, "black"),)


def test_a_level_with_fewer_sections_is_passed_over(tmp_path: Path) -> None:
    voxels = TISSUE.copy()
    voxels[10] = 0
    write_pyramid(tmp_path / "em", voxels, PYRAMID[:2])
    cut = zarr.open_array(tmp_path / "em" / "1")
    cut.resize((20, *cut.shape[1:]))
    source = open_source(tmp_path / "em")
    assert preflight_level(source).spec.level == "0"
    assert find_bad_sections(source) == (BadSection(10, "black"),)


def test_absent_chunks_are_missing_even_where_the_source_fills_them(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "em", TISSUE, PYRAMID[:1], config={"write_empty_chunks": True})
    for chunk in (tmp_path / "em" / "0" / "c" / "2").rglob("*"):
        if chunk.is_file():
            chunk.unlink()
    source = open_source(tmp_path / "em", missing="fill")
    assert find_bad_sections(source) == tuple(BadSection(z, "missing") for z in range(8, 12))


def test_black_and_repeated_sections_survive_jpeg(tmp_path: Path) -> None:
    voxels = TISSUE.copy()
    voxels[[5, 16]], voxels[13] = 0, voxels[12]
    scale = {"size": (200, 200, 24), "chunk_size": (64, 64, 8), "resolution": (8, 8, 40), "encoding": "jpeg"}
    kvstore = {"driver": "file", "path": f"{tmp_path}/em/"}
    spec = {"driver": "neuroglancer_precomputed", "kvstore": kvstore, "scale_metadata": scale}
    kind = {"type": "image", "data_type": "uint8", "num_channels": 1}
    ts.open({**spec, "multiscale_metadata": kind}, create=True).result()[...] = voxels.T[..., None]
    assert find_bad_sections(open_source(tmp_path / "em")) == (
        BadSection(5, "black"),
        BadSection(13, "duplicate", 12),
        BadSection(16, "black"),
    )


def test_a_stack_without_levels_is_read_itself(tmp_path: Path) -> None:
    voxels = TISSUE.copy()
    voxels[4] = 0
    assert find_bad_sections(ArraySource(voxels)) == (BadSection(4, "black"),)
    tifffile.imwrite(tmp_path / "stack.tif", voxels, photometric="minisblack")
    source = open_source(tmp_path / "stack.tif", voxel_size_nm=(40, 8, 8))
    assert find_bad_sections(source) == (BadSection(4, "black"),)


def test_of_a_large_section_windows_are_read_and_no_more() -> None:
    reads = []

    class Watched(ArraySource):
        def read(self, box):  # type: ignore[no-untyped-def]
            reads.append(box)
            return super().read(box)

    voxels = np.tile(tissue(5, 512), (1, 4, 4))
    voxels[2] = 0
    assert find_bad_sections(Watched(voxels)) == (BadSection(2, "black"),)
    assert sum(box.n_voxels for box in reads) <= 5 * 1024 * 1024
    assert max(box.n_voxels for box in reads) <= 64 * 1024 * 1024


def real() -> Iterator[object]:
    for name, path in STACKS.items():
        is_here = (DATA / path).exists()
        skipped = pytest.mark.skipif(not is_here, reason=f"{DATA / path} is not on this machine")
        yield pytest.param(DATA / path, id=name, marks=skipped)


@pytest.mark.parametrize("path", list(real()))
def test_no_section_of_a_real_stack_is_bad_until_it_is_damaged(path: Path) -> None:
    voxels = tifffile.imread(path)
    assert find_bad_sections(ArraySource(voxels)) == ()
    coarse = voxels[:, ::2, ::2]
    assert find_bad_sections(ArraySource(coarse)) == ()
    coarse[[5, 6]], coarse[11] = 0, coarse[10]
    assert find_bad_sections(ArraySource(coarse)) == (
        BadSection(5, "black"),
        BadSection(6, "black"),
        BadSection(11, "duplicate", 10),
    )
