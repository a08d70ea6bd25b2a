"""MRC: sections, sizes and types as its writers mean them; a header is hostile until checked."""

import struct
import warnings
from fractions import Fraction

import mrcfile
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored_volumes import FRAME, GIVEN, SHAPE, VOXELS, mrc

from vemdiffuse_pipe.errors import CorruptDataError, SourceError, VemdiffuseError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage import mrc as driver
from vemdiffuse_pipe.storage import open_source

WHOLE = Box.of_shape(SHAPE)
IMOD = b"IMOD"


def patched(path, *changes):
    """Write (offset, format, value) into the header."""
    data = bytearray(path.read_bytes())
    for offset, form, value in changes:
        struct.pack_into(form, data, offset, value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("dtype", "to_stored", "window"),
    [
        ("int8", lambda v: v.astype(np.int16) - 128, (-128, 127)),
        ("int16", lambda v: v.astype(np.int16) * 16 - 2000, (-2000, 2080)),
        ("uint16", lambda v: v.astype(np.uint16) * 100, (0, 25500)),
        ("float16", lambda v: v, (0, 255)),
        ("float32", lambda v: v / 4, (0, 63.75)),
    ],
)
def test_every_mode_is_read_through_a_window_and_refused_without(dtype, to_stored, window, tmp_path):
    path = mrc(tmp_path / "a.mrc", to_stored(VOXELS).astype(dtype))
    source = open_source(path, window=window)
    assert (source.spec.dtype, source.spec.frame, source.spec.format) == (dtype, FRAME, "mrc")
    assert (source.read(WHOLE) == VOXELS).all()
    with pytest.raises(SourceError, match=f"{dtype}.*--window LOW HIGH"):
        open_source(path)


@pytest.mark.parametrize(
    ("stamped", "flags", "low", "high", "dtype"),
    [
        (True, 0, 0, 99, "uint8"),
        (True, 1, 0, 200, "int8"),
        (False, 0, 0, 200, "uint8"),
        (False, 1, 0, 99, "int8"),
        (False, 0, -9, 99, "int8"),
    ],
)
@pytest.mark.parametrize("order", "<>")
def test_bytes_have_the_sign_that_imod_or_the_range_says(stamped, flags, low, high, dtype, order, tmp_path):
    path = mrc(tmp_path / "a.mrc", VOXELS.view(np.int8), order=order)
    stamp = 1146047817 if stamped else 0
    patched(path, (152, f"{order}i", stamp), (156, f"{order}i", flags))
    patched(path, (76, f"{order}f", low), (80, f"{order}f", high))
    source = open_source(path, window=None if dtype == "uint8" else (-128, 127))
    assert source.spec.dtype == dtype
    voxels = source.read(WHOLE)
    assert (voxels == (VOXELS if dtype == "uint8" else VOXELS ^ 128)).all()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("stamp", [b"DD\0\0", b"\x11\x11\0\0", b"\0\0\0\0"])
def test_order_of_bytes_is_found_whatever_its_stamp_says(order, stamp, tmp_path):
    path = mrc(tmp_path / "a.mrc", VOXELS.astype(np.uint16) * 100, order=order, extended=b"x" * 160)
    patched(path, (212, "4s", stamp))
    source = open_source(path, window=(0, 25500))
    assert source.spec.frame == FRAME
    assert (source.read(Box((3, 5, 7), (9, 20, 30))) == VOXELS[3:9, 5:20, 7:30]).all()


@pytest.mark.parametrize("name", ["a.rec", "a.ST", "volume"])
def test_name_matters_only_where_the_file_does_not_say_what_it_is(name, tmp_path):
    path = mrc(tmp_path / name, VOXELS.astype(np.uint16))
    assert open_source(path, window=(0, 255)).spec.frame == FRAME
    patched(path, (208, "4s", b"\0\0\0\0"))
    if name == "volume":
        with pytest.raises(SourceError, match="no format that we know"):
            open_source(path)
    else:
        assert open_source(path, window=(0, 255)).spec.frame == FRAME


def test_origin_is_the_corner_unless_imod_wrote_it(tmp_path):
    path = mrc(tmp_path / "a.mrc", VOXELS.astype(np.uint16))
    patched(path, *((196 + 4 * i, "<f", value) for i, value in enumerate((430.0, -86.0, 4000.0))))
    assert open_source(path, window=(0, 255)).spec.frame.corner_nm == (400, Fraction("-8.6"), 43)
    patched(path, (152, "4s", IMOD[::-1]), (152, "<i", 1146047817))
    assert open_source(path, window=(0, 255)).spec.frame.corner_nm == (0, 0, 0)


@pytest.mark.parametrize(
    "changes",
    [
        [(40, "<3f", 0)],
        [(48, "<f", -440.0)],
        [(40, "<f", float("nan"))],
        [(48, "<f", float("inf"))],
        [(28, "<i", 0)],
        [(28, "<i", -5)],
        [(40 + 4 * i, "<f", n) for i, n in enumerate(SHAPE[::-1])],
    ],
    ids=["none", "negative", "nan", "inf", "no-grid", "negative-grid", "1-angstrom"],
)
def test_size_that_is_not_stated_is_asked_for(changes, tmp_path):
    path = mrc(tmp_path / "a.mrc", VOXELS.astype(np.uint16))
    changes = [(40 + 4 * i, "<f", 0.0) for i in range(3)] if changes[0][1] == "<3f" else changes
    patched(path, *changes)
    with pytest.raises(SourceError, match="--voxel-size Z Y X"):
        open_source(path, window=(0, 255))
    assert open_source(path, window=(0, 255), **GIVEN).spec.frame == FRAME


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([(12, "<i", 4)], "complex numbers.*mode 4"),
        ([(12, "<i", 101)], "4 bits"),
        ([(12, "<i", 77)], "no header of MRC"),
        ([(8, "<i", -1)], "no header of MRC"),
        ([(8, "<i", 99)], "99 x 23 x 37 voxels.*cut off"),
        ([(8, "<i", 1)], "2D"),
        ([(92, "<i", -9)], "cut off"),
        ([(92, "<i", 2**31 - 1)], "cut off"),
        ([(64, "<i", 3), (72, "<i", 1)], r"order \(3, 2, 1\)"),
        ([(88, "<i", 401), (36, "<i", 1)], "11 volumes"),
    ],
)
def test_header_that_cannot_be_is_refused_in_a_sentence(changes, words, tmp_path):
    path = patched(mrc(tmp_path / "a.mrc", VOXELS.astype(np.uint16)), *changes)
    with pytest.raises(SourceError, match=words):
        open_source(path, window=(0, 255))


def test_file_that_was_cut_off_or_packed_is_refused(tmp_path):
    path = mrc(tmp_path / "a.mrc", VOXELS.astype(np.uint16))
    whole = path.read_bytes()
    source = open_source(path, window=(0, 255))
    path.write_bytes(whole[:-1])
    with pytest.raises(SourceError, match="cut off"):
        open_source(path)
    with pytest.raises(CorruptDataError, match="section 10"):
        source.read(WHOLE)
    path.write_bytes(whole[:1000])
    with pytest.raises(SourceError, match="within its header"):
        open_source(path)
    (tmp_path / "a.mrc.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(SourceError, match="unpack it first"):
        open_source(tmp_path / "a.mrc.gz")


def test_only_sections_of_the_box_are_read(tmp_path, monkeypatch):
    path = mrc(tmp_path / "a.mrc", VOXELS.astype(np.uint16))
    source = open_source(path, window=(0, 255))
    read = []
    real = np.frombuffer
    monkeypatch.setattr(
        driver.np, "frombuffer", lambda data, *rest: read.append(len(data)) or real(data, *rest)
    )
    source.read(Box((4, 0, 0), (6, 3, 3)))
    assert read == [23 * 37 * 2] * 2


def test_any_changed_bytes_give_a_sentence_or_voxels(tmp_path):
    path = mrc(tmp_path / "a.mrc", VOXELS.astype(np.uint16))
    data = path.read_bytes()
    word = st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f", b"\x01\0\0\0"]) | st.binary(
        min_size=4, max_size=4
    )

    @settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(st.integers(0, 252), word), min_size=1, max_size=3))
    def check(changes):
        hostile = bytearray(data)
        for spot, value in changes:
            hostile[spot : spot + 4] = value
        path.write_bytes(hostile)
        try:
            assert open_source(path, window=(0, 9)).read(Box((0, 0, 0), (1, 1, 1))).shape == (1, 1, 1)
        except VemdiffuseError:
            return

    check()


def test_mrcfile_says_the_same(tmp_path):
    path = mrc(tmp_path / "a.mrc", VOXELS.astype(np.uint16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mrcfile.validate(path)
    with mrcfile.open(path) as file:
        assert (file.data == VOXELS).all()
