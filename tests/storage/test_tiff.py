"""TIFF: sections in their order, sizes from ImageJ and OME, and nothing read that is not asked for."""

import struct
from fractions import Fraction

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored_volumes import FRAME, GIVEN, SHAPE, VOXELS, tiff_ome, tiff_plain

from vemdiffuse_pipe.errors import CorruptDataError, MissingDataError, SourceError, VemdiffuseError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage import open_source, tiff
from vemdiffuse_pipe.storage.address import parse_address
from vemdiffuse_pipe.storage.tiff_names import in_order

WHOLE = Box.of_shape(SHAPE)


class TestOrderOfFiles:
    @pytest.mark.parametrize(
        ("names", "ordered"),
        [
            (["s10.tif", "s9.tif", "s8.tif"], ("s8.tif", "s9.tif", "s10.tif")),
            (["9.tif", "12.tif", "10.tif"], ("9.tif", "10.tif", None, "12.tif")),
            (["a_2_x1.tif", "a_1_x2.tif"], ("a_1_x2.tif", "a_2_x1.tif")),
            (
                ["run2_s30.tif", "run2_s10.tif", "run2_s20.tif"],
                ("run2_s10.tif", "run2_s20.tif", "run2_s30.tif"),
            ),
            (["b.tif", "a.tif"], ("a.tif", "b.tif")),
            (["S2.tif", "s1.tif"], ("s1.tif", "S2.tif")),
        ],
    )
    def test_numbers_count(self, names, ordered):
        assert in_order(parse_address("/x"), names) == ordered

    def test_two_files_for_one_number_are_refused(self):
        with pytest.raises(SourceError, match="two files"):
            in_order(parse_address("/x"), ["s1.tif", "s01.tif", "s2.tif"])


@pytest.mark.parametrize("size", ["4.6", "4", "8.3", "0.5", "3.77", "12.5"])
@pytest.mark.parametrize(("unit", "nm"), [("nm", 1), ("micron", 1000), ("\\u00B5m", 1000)])
def test_imagej_size_is_the_decimal_that_was_typed(size, unit, nm, tmp_path):
    pixels = round(1e6 / (float(size) / nm))
    path = tmp_path / "stack.tif"
    metadata = {"axes": "ZYX", "spacing": 50 / nm, "unit": unit}
    tifffile.imwrite(path, VOXELS, imagej=True, resolution=((pixels, 10**6),) * 2, metadata=metadata)
    assert open_source(path).spec.frame.voxel_size_nm == (50, Fraction(size), Fraction(size))


@pytest.mark.parametrize(
    "metadata",
    [
        {"axes": "ZYX", "spacing": 50, "unit": "pixel"},
        {"axes": "ZYX", "unit": "nm"},
        {"axes": "ZYX", "spacing": -50, "unit": "nm"},
        {"axes": "ZYX", "spacing": "1e999999999", "unit": "nm"},
    ],
)
def test_imagej_size_that_is_not_stated_is_asked_for(metadata, tmp_path):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, VOXELS, imagej=True, resolution=(0.25, 0.25), metadata=metadata)
    with pytest.raises(SourceError, match="--voxel-size Z Y X"):
        open_source(path)


def test_stack_that_imagej_writes_as_one_run_is_read(tmp_path):
    path = tmp_path / "virtual.tif"
    with tifffile.TiffWriter(path, imagej=True) as file:
        metadata = {"axes": "ZYX", "spacing": 40, "unit": "nm"}
        file.write(VOXELS, resolution=(1 / 4.3,) * 2, metadata=metadata)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        first = file.pages.first
        struct.pack_into(
            f"{file.byteorder}I", data, first.offset + 2 + 12 * len(first.tags), 0
        )  # no second page
    path.write_bytes(data)
    source = open_source(path)
    assert source.spec.frame == FRAME
    assert (source.read(WHOLE) == VOXELS).all()


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("kind", [{"ome": True}, {"imagej": True}, {"compression": "zlib"}])
def test_byte_order_does_not_change_voxels(byteorder, kind, tmp_path):
    voxels = VOXELS.astype(np.uint16) * 100
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, voxels, byteorder=byteorder, metadata={"axes": "ZYX"}, **kind)
    source = open_source(path, **GIVEN, window=(0, 25500))
    assert source.spec.dtype == "uint16"
    assert (source.read(WHOLE) == VOXELS).all()


@pytest.mark.parametrize(
    ("voxels", "options", "word"),
    [
        (VOXELS[0], {}, "2D"),
        (np.stack([VOXELS] * 3, -1), {"photometric": "rgb"}, "axes"),
        (np.stack([VOXELS] * 3, 1), {"imagej": True, "metadata": {"axes": "ZCYX"}}, "axes"),
        (VOXELS, {"imagej": True, "metadata": {"axes": "TYX"}}, "axes"),
        (VOXELS > 9, {}, "bool"),
    ],
    ids=["one-page", "rgb", "channels", "time", "bilevel"],
)
def test_stack_that_is_no_grey_volume_is_refused(voxels, options, word, tmp_path):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, voxels, **({"photometric": "minisblack"} | options))
    with pytest.raises(SourceError, match=word):
        open_source(path, **GIVEN)


def test_pages_of_two_sizes_are_refused(tmp_path):
    path = tmp_path / "stack.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(VOXELS[0], metadata=None)
        file.write(VOXELS[1, 1:], metadata=None)
    with pytest.raises(SourceError, match="2 kinds of pages"):
        open_source(path, **GIVEN)


def test_chain_of_pages_without_an_end_is_refused(tmp_path):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, VOXELS, metadata=None, photometric="minisblack")
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        last = file.pages[10]
        struct.pack_into("<I", data, last.offset + 2 + 12 * len(last.tags), file.pages[3].offset)
    path.write_bytes(data)
    with pytest.raises(SourceError, match="without an end"):
        open_source(path, **GIVEN)


@pytest.fixture
def with_strip(tmp_path):
    """A stack whose page 5 says that its only strip is (position, bytes)."""

    def write(position, n_bytes):
        path = tmp_path / "stack.tif"
        tiff_plain(path, compression="zlib", rowsperstrip=SHAPE[1])
        data = bytearray(path.read_bytes())
        with tifffile.TiffFile(path) as file:
            tags = file.pages[5].tags
            struct.pack_into("<I", data, tags["StripOffsets"].valueoffset, position)
            struct.pack_into("<I", data, tags["StripByteCounts"].valueoffset, n_bytes)
        path.write_bytes(data)
        return path

    return write


def test_strip_that_is_not_stored_is_missing(with_strip):
    path = with_strip(0, 0)
    with pytest.raises(MissingDataError, match="page 5"):
        open_source(path, **GIVEN).read(WHOLE)
    assert (open_source(path, **GIVEN, missing="fill").read(WHOLE)[5] == 0).all()


def test_strip_beyond_the_file_is_corrupt(with_strip):
    with pytest.raises(CorruptDataError, match="beyond the end"):
        open_source(with_strip(1 << 30, 100), **GIVEN).read(WHOLE)


def test_ome_metadata_never_leads_to_another_file(tmp_path):
    tiff_ome(tmp_path / "secret.ome.tif")
    path = tmp_path / "stack.ome.tif"
    tiff_ome(path)
    described = tifffile.tiffcomment(path).replace(
        '<TiffData IFD="0" PlaneCount="11"/>', '<TiffData><UUID FileName="secret.ome.tif">x</UUID></TiffData>'
    )
    assert "secret" in described
    tifffile.tiffcomment(path, described)
    (tmp_path / "secret.ome.tif").unlink()
    assert (open_source(path).read(WHOLE) == VOXELS).all()


@pytest.fixture
def decoded(monkeypatch):
    """The pages that were decoded, in order."""
    pages = []
    real = tiff._decoded

    def decode(file, page, *rest):
        pages.append(page.index)
        return real(file, page, *rest)

    monkeypatch.setattr(tiff, "_decoded", decode)
    return pages


def test_only_pages_of_the_box_are_decoded(tmp_path, monkeypatch):
    decoded = []
    real = tiff._decoded
    monkeypatch.setattr(
        tiff, "_decoded", lambda file, page, *rest: decoded.append(page.index) or real(file, page, *rest)
    )
    tiff_plain(tmp_path / "stack.tif", compression="zlib")
    source = open_source(tmp_path / "stack.tif", **GIVEN)
    assert decoded == []
    for _ in range(3):
        source.read(Box((4, 0, 0), (6, 3, 3)))
    assert decoded == [4, 5]


def test_cache_keeps_no_more_pages_than_it_may(tmp_path, monkeypatch):
    decoded = []
    real = tiff._decoded
    monkeypatch.setattr(
        tiff, "_decoded", lambda file, page, *rest: decoded.append(page.index) or real(file, page, *rest)
    )
    tiff_plain(tmp_path / "stack.tif", compression="zlib")
    source = open_source(tmp_path / "stack.tif", **GIVEN, cache_bytes=2 * SHAPE[1] * SHAPE[2])
    for z in (0, 1, 2, 1, 0):
        source.read(Box((z, 0, 0), (z + 1, 3, 3)))
    assert decoded == [0, 1, 2, 0]


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"bigtiff": True, "tile": (16, 16)}])
def test_any_changed_bytes_give_a_sentence_or_voxels(options, tmp_path):
    path = tmp_path / "stack.tif"
    tiff_plain(path, **options)
    data = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        tag_bytes = 20 if file.is_bigtiff else 12
        spots = [o for p in file.pages for o in range(p.offset, p.offset + 10 + tag_bytes * len(p.tags))]
    words = st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f", b"\x01\0\0\0"]) | st.binary(
        min_size=4, max_size=4
    )

    @settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(st.sampled_from(spots), words), min_size=1, max_size=3))
    def check(changes):
        hostile = bytearray(data)
        for spot, word in changes:
            hostile[spot : spot + 4] = word
        path.write_bytes(hostile)
        try:
            voxels = open_source(path, **GIVEN).read(Box((0, 0, 0), (1, 1, 1)))
        except VemdiffuseError:
            return
        assert voxels.shape == (1, 1, 1)

    check()


def test_size_that_is_given_outweighs_what_a_program_wrote_into_the_header(tmp_path):
    path = tmp_path / "stack.tif"
    metadata = {"axes": "ZYX", "spacing": 1, "unit": "nm"}
    tifffile.imwrite(path, VOXELS, imagej=True, resolution=(1, 1), metadata=metadata)
    assert open_source(path).spec.frame.voxel_size_nm == (1, 1, 1)
    given = open_source(path, voxel_size_nm=(50, 4.6, 4.6)).spec.frame
    assert given.voxel_size_nm == (50, Fraction("4.6"), Fraction("4.6"))
