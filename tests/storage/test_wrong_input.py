"""Wrong input gets one sentence: what was found, what is needed, what to do."""

import json

import numpy as np
import pytest
import tifffile
import zarr
from stored_volumes import GIVEN, SHAPE, VOXELS, n5, ome_zarr_04, precomputed

from vemdiffuse_pipe.errors import ConfigError, DataError, SourceError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage import open_source


def nothing(path):
    pass


def folder_of_text(path):
    path.mkdir()
    (path / "notes.txt").write_text("no volume")


def text_file(path):
    path.write_text("II no volume")


def empty_file(path):
    path.write_bytes(b"")


def array(dtype, shape=SHAPE):
    return lambda path: zarr.create_array(path, data=np.ones(shape, dtype), zarr_format=2)


def group_of_images(path):
    zarr.open_group(path, mode="w")
    ome_zarr_04(path / "em")


def n5_group(path):
    path.mkdir()
    (path / "attributes.json").write_text(json.dumps({"n5": "2.0.0"}))
    n5(path / "raw", {})


def mesh(path):
    path.mkdir()
    (path / "info").write_text(json.dumps({"@type": "neuroglancer_legacy_mesh"}))


def folder_with_one_stack(path):
    path.mkdir()
    tifffile.imwrite(path / "stack.tif", VOXELS)


@pytest.mark.parametrize(
    ("write", "options", "words"),
    [
        (nothing, {}, ["does not exist", "OME-Zarr"]),
        (folder_of_text, {}, ["folder", "notes.txt", "N5"]),
        (text_file, {}, ["no format that we know", "TIFF"]),
        (empty_file, {}, ["no format that we know"]),
        (group_of_images, {}, ["em", "address of an image"]),
        (n5_group, {}, ["raw", "address of an array"]),
        (mesh, {}, ["scales"]),
        (folder_with_one_stack, {}, ["one TIFF file"]),
        (array("u1"), {}, ["--voxel-size Z Y X"]),
        (array("u1"), {"voxel_size_nm": (40, 4)}, ["three", "z y x"]),
        (array("u1"), {"voxel_size_nm": (40, 4, 0)}, ["larger than 0"]),
        (array("u1"), {"voxel_size_nm": (40, 4, -4)}, ["larger than 0"]),
        (array("u1"), {"voxel_size_nm": (40, 4, float("nan"))}, ["nan", "finite"]),
        (array("u1"), {"voxel_size_nm": ("40", "4", "four")}, ["'four'"]),
        (array("u1"), {**GIVEN, "window": (0, 255)}, ["uint8", "window"]),
        (array("u2"), GIVEN, ["uint16", "--window LOW HIGH"]),
        (array("u2"), {**GIVEN, "window": (9, 9)}, ["window", "lower"]),
        (array("u2"), {**GIVEN, "window": (0, float("inf"))}, ["window", "finite"]),
        (array("u2"), {**GIVEN, "window": (-1e308, 1e308)}, ["window", "finite width"]),
        (array("f4"), GIVEN, ["float32", "--window LOW HIGH"]),
        (array("f8"), {**GIVEN, "window": (0, 1)}, ["float64", "uint8 is needed"]),
        (array("i4"), {**GIVEN, "window": (0, 1)}, ["int32", "uint8 is needed"]),
        (array("i2"), GIVEN, ["int16", "--window LOW HIGH"]),
        (array("i1"), GIVEN, ["int8", "--window LOW HIGH"]),
        (array("u4"), GIVEN, ["uint32"]),
        (array("u8"), GIVEN, ["uint64"]),
        (array("i8"), GIVEN, ["int64"]),
        (array("bool"), GIVEN, ["bool"]),
        (array("c8"), GIVEN, ["<c8", "numbers"]),
        (array("u1", (23, 37)), GIVEN, ["2 axes", "z, y, x"]),
        (array("u1", (37,)), GIVEN, ["1 axes"]),
        (array("u1", (3, 11, 23, 37)), GIVEN, ["3 channels", "name one"]),
        (array("u1", (2, 1, 11, 23, 37)), GIVEN, ["length 2"]),
    ],
)
def test_sentence_says_what_is_wrong(write, options, words, tmp_path):
    write(tmp_path / "volume")
    with pytest.raises(SourceError) as caught:
        open_source(tmp_path / "volume", **options)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "url", ["ftp://host/em.zarr", "s3:///em", "file://host/x", "", "a\0b", "http://[::1", "s3://b/../c"]
)
def test_address_of_no_store_is_refused(url):
    with pytest.raises(ConfigError, match=r"needed|give|is not an address"):
        open_source(url)


@pytest.mark.parametrize("prefix", ["", "file://", "file://localhost"])
def test_local_addresses_are_read(prefix, tmp_path):
    ome_zarr_04(tmp_path / "a volume.zarr")
    path = str(tmp_path / "a volume.zarr")
    assert open_source(prefix + (path.replace(" ", "%20") if prefix else path)).spec.shape == SHAPE


class TestWindow:
    VALUES = np.arange(11 * 23 * 37, dtype=np.uint16).reshape(SHAPE) * 7

    @staticmethod
    def by_definition(values, low, high):
        scaled = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 255
        return np.floor(scaled + 0.5)

    @pytest.mark.parametrize("window", [(0, 255), (100, 40000), (-5, 5), (0.5, 1000.25)])
    @pytest.mark.parametrize("dtype", ["<u2", ">u2", "<f4", ">f4"])
    def test_grey_is_the_stated_formula(self, window, dtype, tmp_path):
        zarr.create_array(tmp_path / "a", data=self.VALUES.astype(dtype), zarr_format=2)
        voxels = open_source(tmp_path / "a", **GIVEN, window=window).read(Box.of_shape(SHAPE))
        assert voxels.dtype == np.uint8
        assert (voxels == self.by_definition(self.VALUES, *window)).all()

    def test_halves_round_up(self, tmp_path):
        zarr.create_array(tmp_path / "a", data=np.array([[[0, 1, 2, 3, 510]]], "u2"), zarr_format=2)
        voxels = open_source(tmp_path / "a", **GIVEN, window=(0, 510)).read(Box.of_shape((1, 1, 5)))
        assert voxels.tolist() == [[[0, 1, 1, 2, 255]]]

    @pytest.mark.parametrize("write", [n5, precomputed, ome_zarr_04], ids=["n5", "precomputed", "ome-zarr"])
    def test_every_format_reads_uint16(self, write, tmp_path):
        args = ({},) if write is n5 else ()
        write(tmp_path / "volume", *args, voxels=VOXELS.astype(np.uint16) * 257)
        source = open_source(tmp_path / "volume", **GIVEN, window=(0, 65535))
        assert source.spec.dtype == "uint16"
        assert (source.read(Box.of_shape(SHAPE)) == VOXELS).all()

    def test_nan_is_refused_where_it_is_read(self, tmp_path):
        values = self.VALUES.astype("f4")
        values[5, 5, 5] = np.nan
        zarr.create_array(tmp_path / "a", data=values, zarr_format=2)
        source = open_source(tmp_path / "a", **GIVEN, window=(0, 100))
        source.read(Box((0, 0, 0), (5, 23, 37)))
        with pytest.raises(DataError, match="NaN"):
            source.read(Box((5, 5, 0), (6, 6, 37)))

    def test_infinity_is_the_end_of_the_window(self, tmp_path):
        values = np.array([[[-np.inf, np.inf]]], "f4")
        zarr.create_array(tmp_path / "a", data=values, zarr_format=2)
        source = open_source(tmp_path / "a", **GIVEN, window=(0, 100))
        assert source.read(Box.of_shape((1, 1, 2))).tolist() == [[[0, 255]]]
