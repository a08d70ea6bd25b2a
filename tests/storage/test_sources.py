"""Every source gives the same frame and the same voxels, whoever wrote it."""

import json

import numcodecs
import numpy as np
import pytest
import zarr
from stored_volumes import (
    FORMATS,
    FRAME,
    GIVEN,
    SHAPE,
    VOXELS,
    chunk_files,
    precomputed,
    precomputed_by_cloudvolume,
    write_json,
)

from vemdiffuse_pipe.errors import MissingDataError, SourceError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage import open_source
from vemdiffuse_pipe.testing import ArraySource
from vemdiffuse_pipe.testing.sources import SourceConformance

DOUBLE = "array in memory"


@pytest.fixture
def voxels():
    return VOXELS


@pytest.fixture
def frame():
    return FRAME


@pytest.fixture(params=[*FORMATS, DOUBLE], ids=str, scope="module")
def source(request, written):
    stored = request.param
    if stored == DOUBLE:
        return ArraySource(VOXELS, FRAME.voxel_size_nm)
    return open_source(written(stored) / stored.inside, **stored.options)


class TestEverySource(SourceConformance):
    def test_its_stored_type_is_stated(self, source):
        assert source.spec.dtype == "uint8"


def test_box_outside_is_refused(stored, written):
    source = open_source(written(stored) / stored.inside, **stored.options)
    for box in (Box((0, 0, 0), (12, 1, 1)), Box((0, -1, 0), (1, 1, 1))):
        with pytest.raises(SourceError, match="not inside"):
            source.read(box)


def test_format_is_found_whatever_the_name(written, tmp_path):
    for stored in FORMATS:
        path = tmp_path / f"{FORMATS.index(stored)}.misleading.n5"
        path.symlink_to(written(stored))
        assert open_source(path / stored.inside, **stored.options).spec.shape == SHAPE


def test_formats_are_named(written):
    found = {open_source(written(s) / s.inside, **s.options).spec.format for s in FORMATS}
    chunked = {"ome-zarr 0.4", "ome-zarr 0.5", "zarr v2", "zarr v3", "n5", "precomputed"}
    assert found == {*chunked, "tiff", "mrc", "hdf5"}


def test_kept_chunk_is_not_asked_for_again(tmp_path):
    precomputed(tmp_path / "volume")
    source = open_source(tmp_path / "volume")
    source.read(FRAME.box)
    for chunk in chunk_files(tmp_path / "volume"):
        chunk.unlink()
    assert (source.read(FRAME.box) == VOXELS).all()
    with pytest.raises(MissingDataError):
        open_source(tmp_path / "volume", cache_bytes=0).read(FRAME.box)


def test_level_of_compression_that_java_writes_is_read(tmp_path):
    path = tmp_path / "volume"
    compressor = {"id": "gzip", "level": 1}
    zarr.create_array(path, data=VOXELS, zarr_format=2, compressors=numcodecs.get_codec(compressor))
    document = json.loads((path / ".zarray").read_text())
    assert document["compressor"] == compressor
    write_json(path / ".zarray", document | {"compressor": {"id": "gzip", "level": -1}})
    assert (open_source(path, **GIVEN).read(FRAME.box) == VOXELS).all()


def test_redirect_in_an_info_is_not_followed(tmp_path):
    path = tmp_path / "volume"
    precomputed_by_cloudvolume(path, compress="gzip")
    precomputed(tmp_path / "other", voxels=VOXELS[:, ::-1].copy())
    info = json.loads((path / "info").read_text())
    write_json(path / "info", info | {"redirect": f"precomputed://file://{tmp_path}/other"})
    assert (open_source(path).read(FRAME.box) == VOXELS).all()


def test_path_may_go_up(tmp_path, monkeypatch):
    precomputed(tmp_path / "volume")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert (open_source("../volume").read(FRAME.box) == VOXELS).all()


def test_jpeg_is_as_near_as_jpeg_is(tmp_path):
    z, y, x = np.indices(SHAPE)
    smooth = (10 * z + 3 * y + x).astype(np.uint8)
    precomputed(tmp_path / "volume", "jpeg", voxels=smooth, jpeg_quality=95)
    voxels = open_source(tmp_path / "volume").read(FRAME.box)
    assert np.abs(voxels.astype(int) - smooth).max() <= 6
    assert (voxels != voxels.flat[0]).any()


def test_labels_are_no_grey_levels(tmp_path):
    block = {"compressed_segmentation_block_size": [8, 8, 8]}
    precomputed(tmp_path / "volume", "compressed_segmentation", voxels=VOXELS.astype(np.uint32), **block)
    with pytest.raises(SourceError, match="stores uint32"):
        open_source(tmp_path / "volume")
