"""Folders of sections: the number that counts is found from all names, or asked for; never a wrong order."""

import re
from fractions import Fraction

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from vemdiffuse_pipe.errors import MissingDataError, SourceError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage import open_source
from vemdiffuse_pipe.storage.address import parse_address
from vemdiffuse_pipe.storage.section_names import in_order

HERE = parse_address("/x")
SIZE = {"voxel_size_nm": (40, 5, 4)}


def tif(*stems):
    return [f"{stem}.tif" for stem in stems]


def order(names, pattern=None):
    return in_order(HERE, names, pattern).files


@pytest.mark.parametrize(
    "ordered",
    [
        tif("s8", "s9", "s10"),
        ["9.tif", "10.tif", None, "12.tif"],
        tif("run2_s10", "run2_s20", "run2_s30"),
        tif("a", "b"),
        tif("s1", "S2"),
        tif("z-2", "z-1", "z0", "z1", "z2"),
        tif("z-2", "z-1", "z+0", "z+1"),
        tif("z=-3", "z=-2", "z=-1"),
        tif("z-3", "z-2", "z-1", "z0"),
        tif("\u22123", "\u22122", "\u22121"),
        tif("slice-001", "slice-002", "slice-003"),
        tif("2021-03-01", "2021-03-02", "2021-03-03"),
        tif("2021.03.01", "2021.03.02", "2021.03.03"),
        tif("z0.0", "z0.5", "z1.0", "z1.5"),
        tif("z0", "z0.5", "z1", "z1.5"),
        tif("z0,25", "z0,5", "z0,75"),
        tif("z-1.0", "z-0.5", "z0.0", "z0.5", "z1.0"),
        tif("z=-1.5", "z=-1", "z=-0.5"),
        tif(*(f"A1.{n}" for n in range(8, 13))),
        tif("s_0_1200", "s_1_1207", "s_2_1250"),
        tif("s_0_20210304_2350", "s_1_20210304_2355", "s_2_20210305_2357"),
    ],
    ids=lambda names: names[0],
)
def test_numbers_are_understood(ordered):
    shuffled = sorted((name for name in ordered if name), key=lambda name: name[::-1])
    assert order(shuffled) == tuple(ordered)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (tif("s1", "s01", "s2"), ["two files", "s01.tif"]),
        (tif("a_2_x1", "a_1_x2"), ["2 numbers vary", "--pattern"]),
        (tif(*(f"s_z{z}_ch{c}" for z in range(4) for c in (0, 1))), ["ch0 to _ch1", "s_z{z}_ch0.tif"]),
        (tif(*(f"s_{z}_r{r}" for z in range(4) for r in (0, 1))), ["r0 to _r1", "s_{z}_r0.tif"]),
        (tif(*(f"{i}_z{i // 2}_c{i % 2}" for i in range(8))), ["3 numbers", "*_z{z}_c0.tif"]),
        (tif(*(f"t{t}_z{z}" for t in (1, 2, 3) for z in range(3))), ["2 numbers"]),
        (tif("s-1", "s-2", "s3"), ["minus", "--pattern"]),
        (tif("-1", "-2", "-3"), ["minus", "--pattern"]),
        (tif(*(f"z{z / 10}" for z in range(20))), ["decimal", "--pattern"]),
        (tif("s_0", "s_1", "s_2", "preview"), ["preview.tif"]),
        (tif("s_0", "s_1", "s_2", "s_2 copy"), ["s_2 copy.tif"]),
        (tif("em_0", "em_1", "seg_0", "seg_1"), ["em_0.tif", "seg_0.tif", "--pattern"]),
        (tif("em", "preview"), ["no number"]),
        (tif("1", "2", "90"), ["more than half"]),
    ],
    ids=lambda v: v[0],
)
def test_what_is_not_certain_is_refused_with_the_choice(names, words):
    with pytest.raises(SourceError) as refusal:
        order(names)
    assert all(word in str(refusal.value) for word in words), refusal.value


# A way to write a section's number z, each of which the names alone make clear for 12 sections.
WRITTEN = st.sampled_from(
    [
        "s_{z}.tif",
        "s_{z:04}.TIF",
        "{z:03}.tiff",
        "slice-{z}.tif",
        "z={m}.tif",
        "z_{m}.tif",
        "em z{m}.tif",
        "z{half}.tif",
        "um{half:07.2f}.tif",
        "2021-03-04_{z}_9.tif",
        "s_{z}_{clock}.tif",
        "{clock}_s_{z:05}_b2.tif",
        "s.{z:03}.raw.tif",
        "s ({z}).tif",
    ]
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    WRITTEN,
    st.integers(0, 900),
    st.integers(1, 20),
    st.sets(st.integers(2, 10), max_size=3),
    st.lists(st.integers(1, 5), min_size=12, max_size=12),
    st.randoms(),
)
def test_sections_are_in_the_order_of_their_numbers_and_gaps_are_at_their_places(
    written, first, step, lost, pauses, random
):
    files = []
    for i in range(12):
        z, clock = first + i * step, 10_000 + 7 * i + 1000 * sum(pauses[:i])
        name = written.format(z=z, m=(i - 6) * step, half=z / 2, clock=clock)
        files.append(None if i in lost else name)
    there = [name for name in files if name]
    random.shuffle(there)
    assert order(there) == tuple(files)


class TestPattern:
    NAMES = tif(*(f"s_z{z:02}_ch{c}" for z in range(4) for c in (0, 1)), "preview")

    def test_names_the_files_that_are_meant(self):
        assert order(self.NAMES, "s_z{z}_ch1.tif") == tuple(tif(*(f"s_z{z:02}_ch1" for z in range(4))))

    def test_reads_signs_and_decimals_where_it_leaves_them_to_the_number(self):
        names = tif("z-1.5", "z-1.0", "z-0.5")
        assert order(names, "z{z}.tif") == tuple(names)
        assert order(tif("s-1", "s-2"), "s-{z}.tif") == tuple(tif("s-1", "s-2"))

    def test_star_is_anything(self):
        names = tif("s_1_2359", "s_2_0003", "s_3_0007")
        assert order(names, "s_{z}_*.tif") == tuple(names)

    @pytest.mark.parametrize("pattern", ["s_z.tif", "{z}{z}.tif", "", "{z}" + "a" * 300])
    def test_needs_one_number(self, pattern):
        with pytest.raises(SourceError, match=r"needs \{z\} once"):
            order(self.NAMES, pattern)

    def test_that_fits_nothing_is_refused_with_what_is_there(self):
        with pytest.raises(SourceError, match=r"0 files like 't_\{z\}\.tif'.*preview\.tif"):
            order(self.NAMES, "t_{z}.tif")

    def test_that_fits_two_files_for_a_section_is_refused(self):
        with pytest.raises(SourceError, match="two files for one number"):
            order(self.NAMES, "s_z{z}_*.tif")


def test_numbering_is_said_in_words():
    numbering = in_order(HERE, tif("s_10", "s_20", "s_40"))
    assert str(numbering) == "3 files, numbered 10 to 40, step 10, 1 absent"
    assert (numbering.first, numbering.step) == (10, 10)
    assert in_order(HERE, tif("z0.5", "z1.0", "z1.5")).step == Fraction(1, 2)


@pytest.fixture
def folder(tmp_path):
    """Three sections of 5 x 4 pixels, 10, 20 and 40, each full of its number."""
    for number in (10, 20, 40):
        tifffile.imwrite(tmp_path / f"s_{number}.tif", np.full((5, 4), number, np.uint8))
    return tmp_path


def test_gap_is_a_missing_section_under_its_policy(folder):
    whole = Box.of_shape((4, 5, 4))
    with pytest.raises(MissingDataError, match=r"section 2 \(number 30\).*absent"):
        open_source(folder, **SIZE).read(whole)
    holes = []
    voxels = open_source(folder, **SIZE, missing="fill").read(whole, holes.append)
    assert voxels[:, 0, 0].tolist() == [10, 20, 0, 40]
    assert holes == [Box((2, 0, 0), (3, 5, 4))]


def test_hidden_and_system_files_are_passed_over(folder):
    (folder / "._s_10.tif").write_bytes(b"\0\5\x16\7 no image")
    (folder / ".s_30.tif").write_bytes((folder / "s_10.tif").read_bytes())
    (folder / "Thumbs.db").write_bytes(b"no image")
    assert open_source(folder, **SIZE).spec.shape == (4, 5, 4)


def test_file_that_is_no_tiff_is_named(folder):
    (folder / "s_10.tif").write_bytes(b"no image")
    with pytest.raises(SourceError, match=re.escape("s_10.tif is no TIFF file")):
        open_source(folder, **SIZE)
