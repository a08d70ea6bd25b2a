"""TIFF: sections in their order, sizes from ImageJ and OME, and nothing read that is not asked for."""

import struct
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored_volumes import FRAME, GIVEN, SHAPE, VOXELS, tiff_plain

from vemdiffuse_pipe.errors import CorruptDataError, MissingDataError, SourceError, VemdiffuseError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage import open_source, tiff_pages
from vemdiffuse_pipe.testing import position_coded

WHOLE = Box.of_shape(SHAPE)
OPEN_FILES = Path("/proc/self/fd")


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
        (np.stack([VOXELS] * 3, -1), {"photometric": "rgb"}, "RGB"),
        (np.stack([VOXELS] * 3, 1), {"photometric": "rgb", "planarconfig": "separate"}, "RGB"),
        (np.stack([VOXELS] * 3, 1), {"imagej": True, "metadata": {"axes": "ZCYX"}}, "3 channels.*--channel"),
        (VOXELS, {"imagej": True, "metadata": {"axes": "CYX"}}, "11 channels and one slice.*Slices"),
        (VOXELS, {"imagej": True, "metadata": {"axes": "TYX"}}, "11 frames .* one slice.*Slices"),
        (
            VOXELS.reshape(11, 1, 23, 37).repeat(2, 1),
            {"metadata": {"axes": "TZYX"}},
            "11 frames .* 2 sections",
        ),
        (VOXELS.reshape(11, 1, 23, 37).repeat(2, 1), {}, "11 pages and 2 pages"),
        (VOXELS > 9, {}, "bool"),
    ],
    ids=["one-page", "rgb", "planar", "channels", "only-channels", "only-time", "time", "unnamed", "bilevel"],
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
    with pytest.raises(SourceError, match=r"2 kinds of pages.*--series 0 to 1"):
        open_source(path, **GIVEN)


HYPERSTACK = position_coded((2, 3, 2, 5, 7))  # c, z, t, y, x: a time point of it is a volume


@pytest.mark.parametrize("order", ["czt", "ctz", "zct", "ztc", "tcz", "tzc"])
@pytest.mark.parametrize("channel", [0, 1])
def test_imagej_channels_are_told_from_sections_in_any_order(order, channel, tmp_path):
    path = tmp_path / "stack.tif"
    volume = HYPERSTACK[:, :, 0]
    axes = [axis for axis in order[::-1] if axis != "t"]
    pages = volume.transpose(["cz".index(axis) for axis in axes] + [2, 3]).reshape(-1, 5, 7)
    description = f"ImageJ=1.54f\nimages=6\nchannels=2\nslices=3\nhyperstack=true\norder={order}\n"
    tifffile.imwrite(path, pages, description=description, metadata=None, photometric="minisblack")
    source = open_source(path, **GIVEN, channel=channel)
    assert (source.read(Box.of_shape((3, 5, 7))) == volume[channel]).all()


def test_imagej_states_a_unit_for_each_axis(tmp_path):
    path = tmp_path / "stack.tif"
    stated = {"axes": "ZYX", "unit": "micron", "yunit": "nm", "zunit": "\\u00C5", "spacing": 400}
    tifffile.imwrite(path, VOXELS, imagej=True, resolution=(1 / 0.0043, 1 / 4.3), metadata=stated)
    assert open_source(path).spec.frame == FRAME


@pytest.mark.parametrize("unit", ["pixel", "sections", "", "xu"])
def test_imagej_unit_that_is_no_length_is_asked_for(unit, tmp_path):
    path = tmp_path / "stack.tif"
    stated = {"axes": "ZYX", "unit": "nm", "zunit": unit, "spacing": 40}
    tifffile.imwrite(path, VOXELS, imagej=True, resolution=(1 / 4, 1 / 4), metadata=stated)
    with pytest.raises(SourceError, match="--voxel-size Z Y X"):
        open_source(path)


def test_16_bits_with_a_sign_are_read_as_fiji_shows_them(tmp_path):
    path = tmp_path / "stack.tif"
    shown = VOXELS.astype(np.int32) * 16 - 2000
    calibration = {"cf": 0, "c0": -32768.0, "c1": 1.0}
    stored = (shown + 32768).astype(np.uint16)
    tifffile.imwrite(path, stored, imagej=True, metadata={"axes": "ZYX", **calibration})
    source = open_source(path, **GIVEN, window=(-2000, 2080))
    assert source.spec.dtype == "int16"
    assert (source.read(WHOLE) == VOXELS).all()
    tifffile.imwrite(path, stored, imagej=True, metadata={"axes": "ZYX", **calibration, "c1": 2.0})
    with pytest.raises(SourceError, match="calibration"):
        open_source(path, **GIVEN, window=(-2000, 2080))


class TestGrey:
    """What is shown is read, not what is stored; anything else is refused by its tag."""

    @pytest.mark.parametrize("one_run", [False, True], ids=["pages", "one-run"])
    def test_white_is_zero(self, one_run, tmp_path):
        path = tmp_path / "stack.tif"
        options = {"imagej": True} if one_run else {"compression": "zlib"}
        tifffile.imwrite(path, 255 - VOXELS, photometric="miniswhite", metadata={"axes": "ZYX"}, **options)
        assert (open_source(path, **GIVEN).read(WHOLE) == VOXELS).all()

    def test_white_is_zero_in_16_bits(self, tmp_path):
        path = tmp_path / "stack.tif"
        stored = 65535 - VOXELS.astype(np.uint16) * 100
        tifffile.imwrite(path, stored, photometric="miniswhite", byteorder=">")
        assert (open_source(path, **GIVEN, window=(0, 25500)).read(WHOLE) == VOXELS).all()

    def test_white_is_zero_of_signed_numbers_is_refused(self, tmp_path):
        path = tmp_path / "stack.tif"
        tifffile.imwrite(path, VOXELS.astype(np.int16), photometric="miniswhite")
        with pytest.raises(SourceError, match="MINISWHITE"):
            open_source(path, **GIVEN, window=(0, 255))

    @pytest.mark.parametrize("scale", [1, 256, 257], ids=["8-bit", "shifted", "16-bit"])
    def test_grey_palette(self, scale, tmp_path):
        path = tmp_path / "stack.tif"
        grey = np.random.default_rng(0).permutation(256).astype(np.uint16)
        place = np.argsort(grey).astype(np.uint8)
        tifffile.imwrite(path, place[VOXELS], photometric="palette", colormap=np.stack([grey * scale] * 3))
        assert (open_source(path, **GIVEN).read(WHOLE) == VOXELS).all()

    def test_palette_of_colours_is_refused(self, tmp_path):
        path = tmp_path / "stack.tif"
        palette = np.arange(768, dtype=np.uint16).reshape(3, 256)
        tifffile.imwrite(path, VOXELS, photometric="palette", colormap=palette)
        with pytest.raises(SourceError, match="palette of colours"):
            open_source(path, **GIVEN)

    def test_four_bits_are_stretched(self, tmp_path):
        path = tmp_path / "stack.tif"
        packed = np.arange(3 * 5 * 4, dtype=np.uint8).reshape(3, 5, 4) * 4
        tifffile.imwrite(path, packed, photometric="minisblack", metadata=None)
        with_tags(path, ImageWidth=8, BitsPerSample=4)
        shown = np.stack([packed >> 4, packed & 15], -1).reshape(3, 5, 8) * 17
        assert (open_source(path, **GIVEN).read(Box.of_shape((3, 5, 8))) == shown).all()

    def test_each_file_of_a_folder_is_read_as_it_says(self, tmp_path):
        for z, section in enumerate(VOXELS):
            white = bool(z % 2)
            stored, how = (255 - section, "miniswhite") if white else (section, "minisblack")
            tifffile.imwrite(tmp_path / f"s_{z}.tif", stored, photometric=how)
        assert (open_source(tmp_path, **GIVEN).read(WHOLE) == VOXELS).all()

    def test_mask_is_refused_by_its_tag(self, tmp_path):
        path = tmp_path / "stack.tif"
        tiff_plain(path)
        with_tags(path, PhotometricInterpretation=4)
        with pytest.raises(SourceError, match=r"photometric tag \(262\) is MASK"):
            open_source(path, **GIVEN)


def with_tags(path, **values):
    """Write other 16-bit values into tags of every page."""
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        for page in file.pages:
            for name, value in values.items():
                struct.pack_into(f"{file.byteorder}H", data, page.aspage().tags[name].valueoffset, value)
    path.write_bytes(data)


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


@pytest.fixture
def decoded(monkeypatch):
    """The pages that were decoded, in order."""
    pages = []
    real = tiff_pages.decoded

    def decode(file, page, *rest):
        pages.append(page.index)
        return real(file, page, *rest)

    monkeypatch.setattr(tiff_pages, "decoded", decode)
    return pages


def test_only_pages_of_the_box_are_decoded(tmp_path, decoded):
    tiff_plain(tmp_path / "stack.tif", compression="zlib")
    source = open_source(tmp_path / "stack.tif", **GIVEN)
    assert decoded == []
    for _ in range(3):
        source.read(Box((4, 0, 0), (6, 3, 3)))
    assert decoded == [4, 5]


def test_cache_keeps_no_more_pages_than_it_may(tmp_path, decoded):
    tiff_plain(tmp_path / "stack.tif", compression="zlib")
    source = open_source(tmp_path / "stack.tif", **GIVEN, cache_bytes=2 * SHAPE[1] * SHAPE[2])
    for z in (0, 1, 2, 1, 0):
        source.read(Box((z, 0, 0), (z + 1, 3, 3)))
    assert decoded == [0, 1, 2, 0]


def test_no_more_files_stay_open_than_may(tmp_path):
    for z, section in enumerate(VOXELS):
        tifffile.imwrite(tmp_path / f"s_{z}.tif", section)
    source = open_source(tmp_path, **GIVEN)
    before = set(OPEN_FILES.iterdir())
    source.read(WHOLE)
    assert set(OPEN_FILES.iterdir()) <= before


def test_threads_read_one_stack_at_once(tmp_path):
    tiff_plain(tmp_path / "stack.tif", compression="zlib")
    source = open_source(tmp_path / "stack.tif", **GIVEN, cache_bytes=0)
    boxes = [Box((z, 0, 0), (z + 1, *SHAPE[1:])) for z in range(SHAPE[0])] * 4
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(source.read, boxes))
    assert all((voxels == VOXELS[box.slices]).all() for voxels, box in zip(read, boxes, strict=True))


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
