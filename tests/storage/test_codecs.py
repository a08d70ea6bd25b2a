"""An open array says how its chunks are encoded."""

from pathlib import Path

import pytest
import zarr
from stored_volumes import FORMATS, VOXELS

from vemdiffuse_pipe.storage import parse_address
from vemdiffuse_pipe.storage.source import find_volume
from vemdiffuse_pipe.storage.zarr_array import ZarrArray

CODECS = {
    "ome-zarr-0.4": "blosc lz4",
    "ome-zarr-0.5-tensorstore": "gzip",
    "ome-zarr-0.5": "zstd",
    "zarr-": "zstd",
    "n5-plain": "blosc zstd",
    "n5-": "gzip",
    "precomputed-png": "png",
    "precomputed-sharded": "raw gzip",
    "precomputed-compresso": "compresso",
    "precomputed-": "raw",
    "tiff-ome-deflate": "adobe_deflate",
    "tiff-folder": "adobe_deflate",
    "tiff-": "raw",
    "mrc-": "raw",
    "hdf5-": "gzip",
}


@pytest.mark.parametrize("stored", FORMATS, ids=str)
def test_a_level_names_its_codec(stored, written):
    volume = find_volume(parse_address(f"{written(stored)}/{stored.inside}".rstrip("/")))
    expected = next(codec for prefix, codec in CODECS.items() if stored.name.startswith(prefix))
    assert {level.array.open(channel=stored.options.get("channel")).codec for level in volume.levels} == {
        expected
    }


@pytest.mark.parametrize(
    ("compressors", "name"),
    [
        (None, "raw"),
        (zarr.codecs.BloscCodec(cname="zstd"), "blosc zstd"),
        (zarr.codecs.GzipCodec(), "gzip"),
    ],
)
def test_an_array_of_zarr_3_names_its_codec(compressors, name, tmp_path: Path):
    zarr.create_array(tmp_path / "em", data=VOXELS, chunks=(5, 7, 16), compressors=compressors)
    assert ZarrArray(parse_address(tmp_path / "em")).open().codec == name
