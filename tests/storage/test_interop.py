"""Files of other programs decode to the values that those programs gave them."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage import faults, n5_array, open_source, parse_address, stores
from vemdiffuse_pipe.storage.source import find_volume
from vemdiffuse_pipe.storage.zarr_array import ZarrArray
from vemdiffuse_pipe.storage.zarr_chunks import ZarrChunks

FIXTURES = Path(__file__).parents[2] / ".." / "shared" / "data" / "interop"
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- arrays -->", "<!-- end -->"
DRIVERS = {
    "zarr.json": "zarr3",
    ".zarray": "zarr",
    "attributes.json": "n5",
    "info": "neuroglancer_precomputed",
}
COMPRESSO = "precomputed-igneous/seg"
OUT_OF_SCOPE = {
    "zarr3-zarrita/data.zarr/1d.contiguous.b1": "bool: refused in a sentence",
    "zarr3-zarrita/data.zarr/1d.contiguous.compressed.sharded.b1": "bool: refused in a sentence",
    "labels-fib25/64x64x64-raw-uint64-segmentation.dat": "no format: refused in a sentence",
}
NM = {"voxel_size_nm": (5, 5, 5)}
AS_IT_IS = {"window": (0, 255)}  # no value of these is larger than 255

pytestmark = pytest.mark.skipif(
    not FIXTURES.is_dir(), reason="the files in ../shared/data/interop are absent"
)

VOLUMES = {
    "n5-bdv-mobie/segmentation.n5/setup0/timepoint0/s0": NM | AS_IT_IS | {"missing": "fill"},
    "n5-bdv-mobie/segmentation.n5/setup0/timepoint0/s1": NM | AS_IT_IS | {"missing": "fill"},
    "omezarr0.4-mobie-java/mri-stack.ome.zarr/s0": NM,
    "omezarr0.4-mobie-java/mri-stack.ome.zarr/s1": NM,
    "zarr2-n5zarr/dimensionOrder.zarr/c-order": NM,
    "zarr2-n5zarr/dimensionOrder.zarr/f-order": NM,
    "precomputed-webknossos/simple_ng_dataset2/color": {},
}

CHANNELS = {  # how many, what to give, and which axes are stored
    "precomputed-webknossos/simple_ng_dataset/color": (3, {}, "zyx"),
    "omezarr-omezarrpy/v1/0": (2, NM, "zyx"),
    "omezarr-omezarrpy/v2/0": (2, NM, "zyx"),
    "zarr2-webknossos/simple_zarr_dataset/color/1-1-1": (3, NM, "zyx"),  # x y z, but its group calls it 1
    "zarr3-webknossos/simple_zarr3_dataset/color/1": (3, {}, "xyz"),
}


@pytest.fixture(scope="module")
def manifest():
    entries = json.loads((FIXTURES / "manifest.json").read_text())["arrays"]
    return {entry["path"]: entry for entry in entries}


@pytest.mark.parametrize("path", VOLUMES)
def test_volume_decodes_to_the_listed_values(path, manifest):
    entry = manifest[path]
    source = open_source(FIXTURES / path, **VOLUMES[path])
    voxels = source.read(source.spec.frame.box)
    assert list(voxels.shape) == entry["shape"][-3:]
    stored = voxels.astype(np.dtype(entry["dtype"]).newbyteorder("<"))
    assert hashlib.sha256(stored.tobytes()).hexdigest() == entry["sha256"]


@pytest.mark.parametrize("path", CHANNELS)
def test_each_channel_decodes_to_its_part_of_the_listed_values(path, manifest):
    n_channels, options, axes = CHANNELS[path]
    sources = [open_source(FIXTURES / path, channel=channel, **options) for channel in range(n_channels)]
    stacked = np.stack([source.read(source.spec.frame.box) for source in sources])
    values = stacked if axes == "zyx" else stacked.transpose(0, 3, 2, 1)
    assert sha256(np.ascontiguousarray(values)) == manifest[path]["sha256"]


def decoded(entry):
    """The values of an array that is no volume of grey levels, through the driver that volumes go through."""
    folder = FIXTURES / entry["path"]
    if entry["path"] == COMPRESSO:
        reader = find_volume(parse_address(folder)).levels[0].array.open()
        return reader.read(Box.of_shape(reader.shape))[None]
    driver = next((driver for name, driver in DRIVERS.items() if (folder / name).exists()), None)
    if driver is None:
        raise SourceError("no metadata")
    address = parse_address(folder)
    spec = {"driver": driver, "kvstore": stores.kvstore_of(address), "fill_missing_data_reads": True}
    if driver.startswith("zarr"):
        array = ZarrArray(address)._metadata()
        if not array.is_for_tensorstore:
            return ZarrChunks(address, array).open(0).read().result()
        spec |= {"metadata": array.document, "assume_metadata": True}
    if driver == "n5":
        attributes = json.loads((folder / "attributes.json").read_text())
        spec |= {"metadata": n5_array._restated(attributes, str(folder)), "assume_metadata": True}
    with faults.opening(str(folder)):
        values = ts.open(spec).result().read().result()
    return values.T if driver in ("n5", "neuroglancer_precomputed") else values


def verdict(entry):
    """What becomes of an array of the manifest, in a few words."""
    if entry["path"] in VOLUMES:
        return "a volume: `open_source`, the listed values"
    if entry["path"] in CHANNELS:
        return "volumes, one a channel: `open_source`, the listed values"
    if entry["sha256"] is None:
        return "text: out of scope"
    try:
        values = decoded(entry)
    except SourceError:
        return OUT_OF_SCOPE[entry["path"]]
    little = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"))
    return "no volume: the driver reads the listed values" if sha256(little) == entry["sha256"] else "WRONG"


def sha256(values):
    return hashlib.sha256(values.tobytes()).hexdigest()


def test_table_of_the_readme_says_how_each_array_reads(manifest):
    rows = [
        f"| `{path}` | {entry['dtype']} {'x'.join(map(str, entry['shape']))} | {verdict(entry)} |"
        for path, entry in manifest.items()
    ]
    assert not [row for row in rows if "WRONG" in row]
    head, begin, rest = README.read_text().partition(BEGIN)
    table, end, tail = rest.partition(END)
    wanted = "\n".join(["", "| array | values | how it reads |", "| --- | --- | --- |", *rows, ""])
    if os.environ.get("GOLDEN") == "write":
        README.write_text(head + begin + wanted + end + tail)
    else:
        assert table == wanted


def test_every_other_array_is_refused_in_a_sentence(manifest):
    others = [path for path, entry in manifest.items() if path not in VOLUMES and entry["sha256"]]
    assert len(others) > 50
    for path in others:
        with pytest.raises(SourceError) as caught:
            open_source(FIXTURES / path, **NM)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "levels"),
    [
        ("n5-bdv-mobie/segmentation.n5/setup0", {"s0": (256,) * 3, "s1": (128,) * 3}),
        ("omezarr0.4-mobie-java/mri-stack.ome.zarr", {"s0": (27, 226, 186), "s1": (13, 113, 93)}),
    ],
)
def test_group_has_its_levels(path, levels):
    for name, shape in levels.items():
        options = NM | (AS_IT_IS if "n5" in path else {})
        source = open_source(FIXTURES / path, level=name, **options)
        assert source.spec.shape == shape
        assert source.spec.n_levels == len(levels)
