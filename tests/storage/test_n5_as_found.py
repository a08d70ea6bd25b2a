"""N5 and precomputed as writers leave them: orders, units and keys of their own, floats, gzip."""

import gzip
import json
import struct
from itertools import permutations

import numcodecs
import numpy as np
import pytest
from stored_volumes import CHUNKS, FRAME, GIVEN, SHAPE, SIZE_NM, SIZE_XYZ, VOXELS, write_json
from stored_volumes import precomputed as write_precomputed

from vemdiffuse_pipe.errors import CorruptDataError, MissingDataError, SourceError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.storage import open_source

WHOLE = Box.of_shape(SHAPE)
NM = dict(zip("zyx", map(float, SIZE_NM), strict=True))
OF_SIZE = {"axes": ["x", "y", "z"], "units": ["nm"] * 3, "resolution": SIZE_XYZ}


def array(path, voxels=VOXELS, chunk=CHUNKS, encode=None, **attributes):
    """One array, stored by hand: what is fastest in memory is listed first."""
    stored = {"dimensions": voxels.shape[::-1], "blockSize": chunk[::-1], "dataType": "uint8"}
    write_json(
        path / "attributes.json", {**stored, "compression": {"type": "gzip", "level": -1}, **attributes}
    )
    for index in np.ndindex(*(-(-n // c) for n, c in zip(voxels.shape, chunk, strict=True))):
        block = voxels[tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunk, strict=True))]
        key = path.joinpath(*map(str, index[::-1]))
        key.parent.mkdir(parents=True, exist_ok=True)
        header = struct.pack(f">HH{voxels.ndim}I", 0, voxels.ndim, *block.shape[::-1])
        key.write_bytes(header + (encode or gzip.compress)(block.tobytes()))
    return path


def stored_as(order):
    """The volume with its axes in `order`, fastest first, and the chunks of it."""
    axes = ["zyx".index(axis) for axis in order[::-1]]
    return VOXELS.transpose(axes), tuple(CHUNKS[axis] for axis in axes)


@pytest.mark.parametrize("order", ["".join(order) for order in permutations("xyz")])
@pytest.mark.parametrize("place", ["array", "group"])
def test_axes_units_and_resolution_are_in_the_order_of_dimensions(order, place, tmp_path):
    voxels, chunk = stored_as(order)
    stated = {"axes": [axis.upper() for axis in order], "units": ["um", "nm", "mm"]}
    stated["resolution"] = [NM[axis] / nm for axis, nm in zip(order, (1000, 1, 1e6), strict=True)]
    if place == "array":
        source = open_source(array(tmp_path / "a", voxels, chunk, **stated))
    else:
        write_json(tmp_path / "attributes.json", stated)
        array(tmp_path / "s0", voxels, chunk)
        source = open_source(tmp_path)
    assert source.spec.frame.voxel_size_nm == pytest.approx(SIZE_NM)
    assert (source.read(WHOLE) == VOXELS).all()


@pytest.mark.parametrize("name", ["c", "channel", "t"])
def test_an_axis_beside_space_is_passed_over(name, tmp_path):
    stated = {"axes": ["x", "y", name, "z"], "units": ["nm", "nm", "", "nm"]}
    stated["resolution"] = [NM["x"], NM["y"], 1, NM["z"]]
    source = open_source(array(tmp_path / "a", VOXELS[:, None], (5, 1, 7, 16), **stated))
    assert source.spec.frame == FRAME
    assert (source.read(WHOLE) == VOXELS).all()


def test_factors_of_a_group_make_its_levels(tmp_path):
    write_json(tmp_path / "attributes.json", {**OF_SIZE, "downsamplingFactors": [[1, 1, 1], [2, 2, 1]]})
    array(tmp_path / "s0")
    array(tmp_path / "s1", np.ascontiguousarray(VOXELS[:, ::2, ::2]))
    assert open_source(tmp_path).spec.frame == FRAME
    assert open_source(tmp_path, level="s1").spec.frame.voxel_size_nm == (40, SIZE_NM[1] * 2, SIZE_NM[2] * 2)


class TestOmeMetadata:
    @pytest.mark.parametrize("order", ["xyz", "zyx", "tczyx", "xyzct"])
    @pytest.mark.parametrize(("unit", "nm"), [("micron", 1000), ("nanometer", 1), ("angstrom", 0.1)])
    def test_x_is_the_fastest_axis_whichever_way_they_are_listed(self, order, unit, nm, tmp_path):
        axes = [{"name": a, "type": "space", "unit": unit} if a in "xyz" else {"name": a} for a in order]
        scale = [NM[a] / nm if a in "xyz" else 0 for a in order]
        level = {"path": "./s0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        write_json(tmp_path / "attributes.json", {"multiscales": [{"axes": axes, "datasets": [level]}]})
        lead = (1,) * (len(order) - 3)
        array(tmp_path / "s0", VOXELS.reshape(*lead, *SHAPE), (*lead, *CHUNKS))
        source = open_source(tmp_path)
        assert source.spec.frame.voxel_size_nm == pytest.approx(SIZE_NM)
        assert (source.read(WHOLE) == VOXELS).all()

    def test_another_order_is_refused_unless_the_group_says_which_is_the_fastest(self, tmp_path):
        axes = [{"name": a, "type": "space", "unit": "nm"} for a in "yzx"]
        level = {
            "path": "s0",
            "coordinateTransformations": [{"type": "scale", "scale": [NM[a] for a in "yzx"]}],
        }
        image = {"multiscales": [{"axes": axes, "datasets": [level]}]}
        write_json(tmp_path / "attributes.json", image)
        array(tmp_path / "s0", *stored_as("zxy"))
        with pytest.raises(SourceError, match="order y, z, x"):
            open_source(tmp_path)
        write_json(tmp_path / "attributes.json", {**image, "axes": list("zxy")})
        source = open_source(tmp_path)
        assert source.spec.frame.voxel_size_nm == SIZE_NM
        assert (source.read(WHOLE) == VOXELS).all()


@pytest.mark.parametrize(
    ("compression", "codec"),
    [
        (
            {"type": "blosc", "cname": "blosclz", "clevel": 6, "shuffle": 0, "blocksize": 0, "nthreads": 1},
            "blosc",
        ),
        ({"type": "blosc", "cname": "zstd", "clevel": 0, "shuffle": 2, "typesize": 1}, "blosc"),
        ({"type": "gzip", "level": -1, "useZlib": True}, "zlib"),
        ({"type": "gzip", "useZlib": False, "strategy": "x"}, "gzip"),
        ({"type": "bzip2", "blockSize": 3}, "bz2"),
        ({"type": "xz", "preset": 99}, "lzma"),
        ({"type": "zstd", "level": 0, "nbWorkers": 0}, "zstd"),
        ({"type": "zstandard"}, "zstd"),
        ({"type": "raw", "level": 1}, None),
    ],
)
def test_keys_of_a_compressor_that_voxels_do_not_depend_on_are_passed_over(compression, codec, tmp_path):
    encode = bytes if codec is None else lambda data: bytes(numcodecs.get_codec({"id": codec}).encode(data))
    source = open_source(array(tmp_path / "a", encode=encode, compression=compression, **OF_SIZE))
    assert (source.read(WHOLE) == VOXELS).all()


@pytest.mark.parametrize("compression", [{"type": "lz4"}, {"type": "jpeg"}, {}, 5, {"type": ["gzip"]}])
def test_a_compression_that_is_not_read_is_refused(compression, tmp_path):
    with pytest.raises(SourceError, match="compression"):
        open_source(array(tmp_path / "a", compression=compression), **GIVEN)


def change_info(path, **scale):
    info = json.loads((path / "info").read_text())
    info["scales"][0] |= scale
    write_json(path / "info", info)


@pytest.fixture
def precomputed(tmp_path):
    write_precomputed(tmp_path / "volume")
    return tmp_path / "volume"


class TestPrecomputed:
    def test_whole_numbers_may_be_written_as_floats(self, tmp_path):
        path = tmp_path / "volume"
        write_precomputed(path, offset=(-5, 3, 7), sharding=dict(SHARDING))
        info = json.loads((path / "info").read_text(), parse_int=float)
        write_json(path / "info", info)
        source = open_source(path)
        assert source.spec.frame == Frame(SHAPE, SIZE_NM, (7 * SIZE_NM[0], 3 * SIZE_NM[1], -5 * SIZE_NM[2]))
        assert (source.read(WHOLE) == VOXELS).all()

    @pytest.mark.parametrize(
        "size", [[37.5, 23, 11], [float("nan"), 23, 11], ["37", 23, 11], [1e300, 23, 11]]
    )
    def test_other_numbers_are_refused(self, size, precomputed):
        change_info(precomputed, size=size)
        with pytest.raises(SourceError, match="size: found"):
            open_source(precomputed)

    @pytest.mark.parametrize("key", ["./8_8_40", "8_8_40/", "././8_8_40//"])
    def test_a_key_may_be_written_otherwise(self, key, precomputed):
        change_info(precomputed, key=key)
        source = open_source(precomputed, level="8_8_40")
        assert (source.read(WHOLE) == VOXELS).all()

    @pytest.mark.parametrize("name", ["info", "info.gz"])
    def test_an_info_may_be_gzip(self, name, precomputed):
        packed = gzip.compress((precomputed / "info").read_bytes())
        (precomputed / "info").unlink()
        (precomputed / name).write_bytes(packed)
        assert (open_source(precomputed).read(WHOLE) == VOXELS).all()

    @pytest.mark.parametrize("encoding", ["raw", "png"])
    @pytest.mark.parametrize("which", ["all", "some", "last"])
    def test_chunks_may_be_gzip_of_which_nothing_is_said(self, encoding, which, tmp_path):
        path = tmp_path / "volume"
        write_precomputed(path, encoding)
        chunks = sorted((path / "8_8_40").iterdir())
        for chunk in {"all": chunks, "some": chunks[::2], "last": chunks[-1:]}[which]:
            chunk.write_bytes(gzip.compress(chunk.read_bytes()))
        source = open_source(path)
        assert (source.read(WHOLE) == VOXELS).all()
        chunks[0].unlink()
        with pytest.raises(MissingDataError):
            open_source(path).read(WHOLE)

    def test_a_bomb_among_them_is_corrupt(self, precomputed):
        chunk = min((precomputed / "8_8_40").iterdir())
        chunk.write_bytes(gzip.compress(bytes(64 << 20)))
        with pytest.raises(CorruptDataError, match="gzip"):
            open_source(precomputed).read(WHOLE)

    def test_a_level_whose_folder_is_absent_is_passed_over(self, precomputed):
        info = json.loads((precomputed / "info").read_text())
        finer = {**info["scales"][0], "key": "4_4_40", "resolution": [2, 2, 40]}
        write_json(precomputed / "info", {**info, "scales": [finer, *info["scales"]]})
        assert open_source(precomputed).spec.level == "8_8_40"


SHARDING = {
    "@type": "neuroglancer_uint64_sharded_v1",
    "preshift_bits": 2,
    "minishard_bits": 1,
    "shard_bits": 2,
    "hash": "identity",
}


@pytest.mark.parametrize("name", ["attributes.json", "s0/attributes.json"])
def test_the_address_of_a_metadata_file_is_that_of_its_volume(name, tmp_path):
    write_json(tmp_path / "attributes.json", OF_SIZE)
    array(tmp_path / "s0")
    source = open_source(tmp_path / name)
    assert source.spec.frame == FRAME
    assert (source.read(WHOLE) == VOXELS).all()
