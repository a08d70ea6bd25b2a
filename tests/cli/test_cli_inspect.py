"""What inspect prints of a volume, what it draws, and what it finds in its sections."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from contextlib import nullcontext, suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
import public_layouts as layouts
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_volumes import VOXEL_SIZE, Ended

from vemdiffuse_pipe import config
from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.evaluation.picture import MARGIN_PX, TITLE_PX
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.phantom import phantom
from vemdiffuse_pipe.survey.peek import MAX_BYTES, draw
from vemdiffuse_pipe.testing import position_coded
from vemdiffuse_pipe.volume import VolumeSpec, Voxels

Vemdiffuse = Callable[..., Ended]


def write_pyramid(
    path: Path, shapes: dict[str, tuple[int, int, int]], dxy: float = 8, **options: object
) -> None:
    """OME-Zarr with levels of these shapes; without chunks unless there are voxels to write."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    first, datasets = next(iter(shapes.values())), []
    for name, shape in shapes.items():
        array = group.create_array(name, shape=shape, dtype="uint8", **options)  # type: ignore[arg-type]
        if np.prod(shape) < 1 << 24:
            array[...] = position_coded(shape)
        size = [s * a / b for s, a, b in zip((40.0, dxy, dxy), first, shape, strict=True)]
        datasets.append({"path": name, "coordinateTransformations": [{"type": "scale", "scale": size}]})
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    image = {"axes": axes, "datasets": datasets}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}


def test_a_level_says_how_it_is_cut_and_encoded_and_what_a_read_decodes(
    here: Path, vemdiffuse: Vemdiffuse
) -> None:
    write_pyramid(here / "em", {"s0": (320, 3000, 2600)}, chunks=(64, 64, 64), shards=(64, 512, 512))
    text = vemdiffuse("inspect", "em").stdout
    for words in (
        "320 x 3000 x 2600 voxels of 40 x 8 x 8 nm: dz / dxy is 5",
        "uint8, 2.5 GB, zstd, chunks of 64 x 64 x 64, shards of 64 x 512 x 512",
        "a read of 1 x 1024 x 1024 decodes 64 x 1024 x 1024: 67.1 MB",
    ):
        assert words in text
    (level,) = json.loads(vemdiffuse("inspect", "em", "--json").stdout)["levels"]
    assert level["bytes"] == 320 * 3000 * 2600
    assert level["codec"] == "zstd"
    assert level["one_read"] == {
        "shape": [1, 1024, 1024],
        "touched_shape": [64, 1024, 1024],
        "touched_bytes": 64 << 20,
    }


def test_a_read_decodes_no_more_than_there_is(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    assert "a read of 1 x 23 x 37 decodes 1 x 23 x 37: 851 B" in vemdiffuse("inspect", stack).stdout


def test_every_level_of_a_public_layout_is_listed(here: Path, vemdiffuse: Vemdiffuse) -> None:
    layouts.precomputed(here / "em", layouts.MICRONS)
    levels = json.loads(vemdiffuse("inspect", "em", "--json").stdout)["levels"]
    assert [level["voxel_size_nm"] for level in levels] == [[float(v) for v in s] for s in layouts.MICRONS]
    assert {level["codec"] for level in levels} == {"jpeg"}
    assert levels[0]["corner_nm"] == [7 * 40, 30 * 8, 26 * 8]


def test_peek_draws_the_coarsest_level_that_has_512_px(here: Path, vemdiffuse: Vemdiffuse) -> None:
    shapes = {"s0": (12, 1100, 600), "s1": (12, 550, 300), "s2": (6, 275, 150)}
    write_pyramid(here / "em", shapes, chunks=(4, 128, 128))
    ended = vemdiffuse("inspect", "em", "--peek", "em.png")
    assert ended.code == 0, ended.stderr
    assert "of level s1" in ended.stdout
    voxels, drawn = position_coded(shapes["s1"]), drawn_panels(Path("em.png"), 300)
    np.testing.assert_array_equal(drawn[0][:550], voxels[5])
    # dz / dx is 40 / 16: five rows for two sections
    np.testing.assert_array_equal(drawn[1][:30], voxels[np.arange(30) * 2 // 5, 274])


def picture_of(file: Path) -> Voxels:
    """A picture's grey levels."""
    with Image.open(file) as image:
        return np.asarray(image.convert("L"))


def drawn_panels(file: Path, width: int) -> list[Voxels]:
    """The two views below their titles, each `width` wide, without the margins around."""
    below = picture_of(file)[2 * MARGIN_PX + TITLE_PX :]
    return [below[:, MARGIN_PX : MARGIN_PX + width], below[:, 2 * MARGIN_PX + width :][:, :width]]


def test_peek_draws_the_level_that_is_asked_for(here: Path, vemdiffuse: Vemdiffuse) -> None:
    write_pyramid(here / "em", {"s0": (4, 64, 600), "s1": (4, 32, 300)}, chunks=(4, 32, 32))
    for asked in (("--level", "s1"), ("--voxel-size", "40", "16", "16")):
        facts = json.loads(vemdiffuse("inspect", "em", *asked, "--peek", "em.png", "--json").stdout)
        assert facts["peek"]["level"] == "s1"
    assert vemdiffuse("inspect", "em", "--level", "s7", "--peek", "em.png").code == 2


def test_peek_has_the_proportions_that_are_given_where_none_are_stated(
    here: Path, vemdiffuse: Vemdiffuse
) -> None:
    voxels = position_coded((4, 60, 500))
    tifffile.imwrite("em.tif", voxels, photometric="minisblack")
    assert vemdiffuse("inspect", "em.tif", "--peek", "square.png").code == 0
    np.testing.assert_array_equal(drawn_panels(Path("square.png"), 500)[1][:4], voxels[:, 29])
    assert vemdiffuse("inspect", "em.tif", *VOXEL_SIZE, "--peek", "true.png").code == 0
    tall = drawn_panels(Path("true.png"), 500)[1][:20]
    np.testing.assert_array_equal(tall, voxels[:, 29].repeat(5, axis=0))


def test_a_picture_that_cannot_be_written_is_said_in_a_sentence(stack: Path, vemdiffuse: Vemdiffuse) -> None:
    ended = vemdiffuse("inspect", stack, "--peek", "no/such/folder/a.png")
    assert ended.code == 2
    assert "a.png cannot be written: No such file or directory" in ended.stderr


def test_peek_at_numbers_that_are_no_grey_levels_needs_a_window(here: Path, vemdiffuse: Vemdiffuse) -> None:
    tifffile.imwrite("deep.tif", np.ones((3, 20, 30), np.uint16), photometric="minisblack")
    ended = vemdiffuse("inspect", "deep.tif", "--peek", "a.png")
    assert ended.code == 2
    assert "--window" in ended.stderr
    assert vemdiffuse("inspect", "deep.tif", "--peek", "a.png", "--window", "0", "2").code == 0


class Blank:
    """A volume of any size that holds nothing but zeros, and remembers the largest box that was read."""

    def __init__(self, spec: VolumeSpec) -> None:
        self.spec = spec

    def read(self, box: Box) -> Voxels:
        assert self.spec.frame.box.contains(box)
        return np.zeros(box.shape, np.uint8)


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(*[st.integers(1, 300_000)] * 3),
    st.tuples(*[st.sampled_from([1, 64, 100, 512, 5000])] * 3),
    st.fractions(Fraction(1, 1000), 1000, max_denominator=1000),
    st.sampled_from(["uint8", "float32"]),
)
def test_peek_decodes_at_most_64_mb_of_any_volume(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int, int],
    chunk: tuple[int, int, int],
    dz: Fraction,
    dtype: str,
) -> None:
    frame = Frame(shape, (dz, Fraction(1), Fraction(1)))
    source = Blank(VolumeSpec("memory", "array", frame, dtype, chunk, chunk))
    file = tmp_path_factory.getbasetemp() / "blank.png"
    decoded_at_once = (
        np.prod([min(a, b) for a, b in zip(shape, chunk, strict=True)]) * np.dtype(dtype).itemsize
    )
    with suppress(SourceError) if decoded_at_once > MAX_BYTES // 4 else nullcontext():
        assert draw(source, file, is_size_known=True).decoded_bytes <= MAX_BYTES
        assert max(picture_of(file).shape) <= 2 * 2048 + 3 * MARGIN_PX


def test_sections_prints_a_line_that_a_run_file_takes(here: Path, vemdiffuse: Vemdiffuse) -> None:
    voxels = phantom((9, 80, 90), 1).copy()
    voxels[[2, 3]], voxels[6] = 0, voxels[5]
    tifffile.imwrite("em.tif", voxels, photometric="minisblack")
    ended = vemdiffuse("inspect", "em.tif", "--sections")
    assert ended.code == 0, ended.stderr
    for words in ("3 of 9 are bad", "section 2: black", "section 6: duplicate of 5"):
        assert words in ended.stdout
    (line,) = (line for line in ended.stdout.splitlines() if "rejected_sections" in line)
    source = f'[source]\nurl = "em.tif"\nvoxel_size_nm = [20, 10, 10]\n{line.strip()}\n'
    text = f'{source}[output]\nurl = "out.zarr"\n[model]\nname = "linear"\n'
    Path("run.toml").write_text(text)
    assert config.parse(tomllib.loads(text)).source.rejected_sections == (2, 3, 6)
    assert vemdiffuse("run", "run.toml").code == 0
    facts = json.loads(vemdiffuse("inspect", "em.tif", "--sections", "--json").stdout)["sections"]
    assert facts["rejected_sections"] == [2, 3, 6]
    assert facts["bad"][2] == {"section": 6, "reason": "duplicate", "of": 5}


def test_sections_names_jumps_between_sections(here: Path, vemdiffuse: Vemdiffuse) -> None:
    tissue = phantom((1, 130, 130), 1)[0]
    moved = np.stack([tissue[:100, :100]] * 3 + [tissue[8:108, 6:106]])
    tifffile.imwrite("em.tif", moved, photometric="minisblack")
    ended = vemdiffuse("inspect", "em.tif", "--sections")
    assert ended.code == 0
    assert "sections 2 and 3: a jump of 10.0 px, -8.0 along y and -6.0 along x" in ended.stdout
    facts = json.loads(vemdiffuse("inspect", "em.tif", "--sections", "--json").stdout)["alignment"]
    assert facts["jumps"] == [2]
    assert facts["verdict"] in ended.stdout


def test_sections_of_a_whole_stack_print_no_line(here: Path, vemdiffuse: Vemdiffuse) -> None:
    tifffile.imwrite("em.tif", phantom((5, 80, 90), 1), photometric="minisblack")
    ended = vemdiffuse("inspect", "em.tif", "--sections")
    assert "0 of 5 are bad" in ended.stdout
    assert "rejected_sections" not in ended.stdout


def test_the_last_section_is_listed_and_not_rejected(here: Path, vemdiffuse: Vemdiffuse) -> None:
    voxels = phantom((5, 80, 90), 1).copy()
    voxels[4] = voxels[3]
    tifffile.imwrite("em.tif", voxels, photometric="minisblack")
    ended = vemdiffuse("inspect", "em.tif", "--sections")
    assert "section 4: duplicate of 3" in ended.stdout
    assert "rejected_sections" not in ended.stdout


def test_datasets_says_what_is_known_and_what_is_not(vemdiffuse: Vemdiffuse) -> None:
    text = vemdiffuse("datasets").stdout
    for words in ("microns ", "voxels of 45 x 4.3 x 4.3 nm: dz / dxy is 10.47", "licence: not known here"):
        assert words in text
    facts = json.loads(vemdiffuse("datasets", "--json").stdout)
    assert facts["microns"]["ratio"] == 5
    assert facts["jrc_ctl-id8-2"]["voxel_size_nm"] is None
