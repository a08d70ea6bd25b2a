"""Zarr as writers leave it: chunks under other names, keys more and less. Right voxels, or a sentence."""

import base64
import json
import shutil

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored_volumes import (
    CHUNKS,
    FRAME,
    GIVEN,
    SHAPE,
    VOXELS,
    chunk_files,
    multiscales,
    ome_zarr_04,
    write_json,
)

from vemdiffuse_pipe.errors import CorruptDataError, DataError, MissingDataError, SourceError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage import open_source

WHOLE = Box.of_shape(SHAPE)
NAMES = {
    2: [("v2", "."), ("v2", "/")],
    3: [("default", "/"), ("default", "."), ("v2", "."), ("v2", "/")],
}


def change(path, drop=(), **changes):
    document = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in document.items() if key not in drop}))


def array(path, voxels=VOXELS, names=None, **options):
    """A bare array whose chunks are all stored."""
    keys = {} if names is None else {"chunk_key_encoding": {"name": names[0], "separator": names[1]}}
    chunks = (1,) * (voxels.ndim - 3) + CHUNKS
    layout = {"shape": voxels.shape, "chunks": chunks, "dtype": voxels.dtype}
    stored = zarr.create_array(path, config={"write_empty_chunks": True}, **{**layout, **keys, **options})
    stored[...] = voxels
    return path


def voxels_of(path, **options):
    source = open_source(path, **{**GIVEN, **options})
    return source.read(Box.of_shape(source.spec.shape))


class TestNamesOfChunks:
    @pytest.mark.parametrize(
        ("version", "stored", "stated"),
        [(v, a, b) for v in (2, 3) for a in NAMES[v] for b in (*NAMES[v], None) if a != b],
    )
    def test_chunks_are_read_by_the_names_that_are_there(self, version, stored, stated, tmp_path):
        array(tmp_path / "a", names=stored, zarr_format=version)
        document = tmp_path / "a" / ("zarr.json" if version == 3 else ".zarray")
        if version == 2:
            change(document, drop=["dimension_separator"])
            if stated:
                change(document, dimension_separator=stated[1])
        elif stated:
            change(
                document, chunk_key_encoding={"name": stated[0], "configuration": {"separator": stated[1]}}
            )
        else:
            change(document, drop=["chunk_key_encoding"])
        assert (voxels_of(tmp_path / "a") == VOXELS).all()

    def test_an_absent_chunk_under_other_names_is_missing_and_the_others_are_read(self, tmp_path):
        array(tmp_path / "a", names=("v2", "/"), zarr_format=2)
        change(tmp_path / "a" / ".zarray", drop=["dimension_separator"])
        (tmp_path / "a" / "0" / "0" / "0").unlink()
        with pytest.raises(MissingDataError):
            voxels_of(tmp_path / "a")
        filled = voxels_of(tmp_path / "a", missing="fill")
        assert (filled[5:] == VOXELS[5:]).all()
        assert not filled[:5, :7, :16].any()

    def test_names_that_were_read_once_are_kept(self, tmp_path):
        array(tmp_path / "a", names=("v2", "."), zarr_format=2)
        source = open_source(tmp_path / "a", **GIVEN, cache_bytes=0)
        source.read(Box((0, 0, 0), (1, 1, 1)))
        for chunk in chunk_files(tmp_path / "a"):
            chunk.unlink()
        shutil.rmtree(array(tmp_path / "b", names=("v2", "/"), zarr_format=2) / "1")
        shutil.copytree(tmp_path / "b" / "0", tmp_path / "a" / "0")
        with pytest.raises(MissingDataError):
            source.read(Box((0, 0, 0), (1, 1, 1)))


class TestAxes:
    @given(
        st.permutations("zyx"), st.sampled_from(["", "t", "c", "tc"]), st.sampled_from([2, 3]), st.booleans()
    )
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    def test_axes_are_found_by_name_in_any_order(self, tmp_path_factory, order, lead, version, upper):
        path = tmp_path_factory.mktemp("axes") / "a"
        voxels = VOXELS.transpose(["zyx".index(axis) for axis in order])
        voxels = voxels[(None,) * len(lead)]
        names = [axis.upper() if upper else axis for axis in (*lead, *order)]
        options = {"dimension_names": names} if version == 3 else {"attributes": {"_ARRAY_DIMENSIONS": names}}
        array(path, voxels, chunks=voxels.shape, zarr_format=version, **options)
        assert (voxels_of(path) == VOXELS).all()

    def test_xarray_names_axes_of_version_3_in_an_attribute_too(self, tmp_path):
        array(tmp_path / "a", VOXELS.T, chunks=CHUNKS[::-1], attributes={"_ARRAY_DIMENSIONS": list("xyz")})
        assert (voxels_of(tmp_path / "a") == VOXELS).all()

    @pytest.mark.parametrize(
        "names", [["dim_0", "dim_1", "dim_2"], ["z", "y"], "zyx", [None, None, None], ["z"] * 3]
    )
    def test_names_that_name_no_space_leave_the_usual_order(self, names, tmp_path):
        array(tmp_path / "a", zarr_format=2, attributes={"_ARRAY_DIMENSIONS": names})
        assert (voxels_of(tmp_path / "a") == VOXELS).all()

    @pytest.mark.parametrize("name", ["channel", "c", "s", "c^", "C", "stain", "wavelength"])
    @pytest.mark.parametrize("at", [0, 3])
    def test_a_channel_is_known_by_its_type(self, name, at, tmp_path):
        stacked = np.stack([255 - VOXELS, VOXELS], at)
        write_image(tmp_path, stacked, channel_axes(name, at))
        assert (voxels_of(tmp_path, channel=1) == VOXELS).all()
        with pytest.raises(SourceError, match="2 channels; name one"):
            voxels_of(tmp_path)

    def test_time_is_no_channel_whatever_its_name(self, tmp_path):
        axes = channel_axes("c", 0)
        axes[0] = {"name": "c", "type": "time"}
        write_image(tmp_path, np.stack([VOXELS, VOXELS]), axes)
        with pytest.raises(SourceError, match="one time point"):
            voxels_of(tmp_path)


def channel_axes(name, at):
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    return [*axes[:at], {"name": name, "type": "channel"}, *axes[at:]]


def write_image(path, voxels, axes, **more):
    numbers = {"z": 40, "y": 4.3, "x": 4.3}
    scale = [numbers.get(axis["name"], 1) for axis in axes]
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    write_json(path / ".zgroup", {"zarr_format": 2})
    write_json(
        path / ".zattrs", {"multiscales": [{"version": "0.4", "axes": axes, "datasets": [dataset], **more}]}
    )
    zarr.create_array(path / "0", data=voxels, chunks=voxels.shape, zarr_format=2)


@pytest.mark.parametrize("nothing", [0, None, float("nan"), -1, "1"])
@pytest.mark.parametrize("part", ["scale", "translation"])
def test_a_scale_of_time_and_channel_matters_to_nobody(nothing, part, tmp_path):
    ome_zarr_04(tmp_path, axes="tczyx")
    image = json.loads((tmp_path / ".zattrs").read_text())["multiscales"]
    for step in image[0]["datasets"][0]["coordinateTransformations"]:
        if step["type"] == part:
            step[part][:2] = [nothing, nothing]
    change(tmp_path / ".zattrs", multiscales=image)
    assert open_source(tmp_path).spec.frame == FRAME


BAD_FILL_VALUES = [
    "0",
    "",
    -1,
    256,
    1.5,
    10**30,
    float("nan"),
    [0],
    {},
    base64.b64encode(b"\0").decode(),
    True,
]


class TestFillValues:
    @pytest.mark.parametrize("value", BAD_FILL_VALUES)
    @pytest.mark.parametrize("version", [2, 3])
    def test_a_value_that_the_type_cannot_hold_is_named_where_it_is_needed_and_not_before(
        self, value, version, tmp_path
    ):
        array(tmp_path / "a", zarr_format=version)
        change(tmp_path / "a" / ("zarr.json" if version == 3 else ".zarray"), fill_value=value)
        assert (voxels_of(tmp_path / "a") == VOXELS).all()
        chunk_files(tmp_path / "a")[0].unlink()
        with pytest.raises(MissingDataError):
            voxels_of(tmp_path / "a")
        with pytest.raises(MissingDataError, match="fill_value") as caught:
            voxels_of(tmp_path / "a", missing="fill")
        assert repr(value)[:9] in str(caught.value)

    @pytest.mark.parametrize(
        ("dtype", "value", "grey"),
        [("u1", 7.0, 7), ("f4", "NaN", 0), ("f4", "-Infinity", 0), ("f4", "Infinity", 255), ("f4", 9, 9)],
    )
    @pytest.mark.parametrize("version", [2, 3])
    def test_a_value_of_the_type_fills_however_it_is_written(self, dtype, value, grey, version, tmp_path):
        array(tmp_path / "a", VOXELS.astype(dtype), zarr_format=version)
        change(tmp_path / "a" / ("zarr.json" if version == 3 else ".zarray"), fill_value=value)
        chunk_files(tmp_path / "a")[0].unlink()
        window = {"window": (0, 255)} if dtype == "f4" else {}
        filled = voxels_of(tmp_path / "a", missing="fill", nan="fill", **window)
        changed = filled[filled != VOXELS]
        assert changed.size > 0
        assert set(changed.tolist()) == {grey}

    def test_the_bits_of_a_float_are_a_number(self, tmp_path):
        array(tmp_path / "a", VOXELS.astype("f4"))
        change(tmp_path / "a" / "zarr.json", fill_value="0x40e00000")
        chunk_files(tmp_path / "a")[0].unlink()
        filled = voxels_of(tmp_path / "a", missing="fill", window=(0, 255))
        assert set(filled[filled != VOXELS].tolist()) == {7}


@pytest.mark.parametrize(
    "added",
    [
        {
            "id": "blosc",
            "cname": "zstd",
            "clevel": 5,
            "shuffle": 1,
            "blocksize": 0,
            "typesize": 1,
            "nthreads": 4,
        },
        {"id": "blosc", "cname": "lz4", "clevel": 0},
        {"id": "zstd", "level": 0, "checksum": False, "nthreads": 2},
        {"id": "zlib", "level": -1, "wbits": 15},
        {"id": "bz2"},
        {"id": "gzip", "level": 99, "name": "gzip"},
    ],
)
def test_keys_of_a_compressor_that_voxels_do_not_depend_on_are_passed_over(added, tmp_path):
    plain = {"id": added["id"]} | ({"cname": added["cname"]} if "cname" in added else {})
    array(tmp_path / "a", zarr_format=2, compressors=numcodecs.get_codec(plain))
    change(tmp_path / "a" / ".zarray", compressor=added)
    assert (voxels_of(tmp_path / "a") == VOXELS).all()


@pytest.mark.parametrize(
    "codecs",
    [
        ["bytes", {"name": "gzip", "configuration": {"level": 5, "checksum": True}}],
        [{"name": "bytes"}, {"name": "gzip"}],
        [{"name": "endian", "configuration": {"endian": "little"}}, "gzip"],
        [{"name": "transpose", "configuration": {"order": "C"}}, "bytes", "gzip"],
    ],
)
def test_codecs_of_version_3_may_say_more_or_less(codecs, tmp_path):
    array(tmp_path / "a", compressors=zarr.codecs.GzipCodec())
    change(tmp_path / "a" / "zarr.json", codecs=codecs, storage_transformers=[])
    assert (voxels_of(tmp_path / "a") == VOXELS).all()


def test_a_key_of_version_3_that_must_be_understood_is_named(tmp_path):
    array(tmp_path / "a")
    change(tmp_path / "a" / "zarr.json", added={"must_understand": False})
    assert (voxels_of(tmp_path / "a") == VOXELS).all()
    change(tmp_path / "a" / "zarr.json", permuted={"by": 2})
    with pytest.raises(SourceError, match="permuted"):
        voxels_of(tmp_path / "a")


@pytest.mark.parametrize(
    "word", ["NaN", "-Infinity", "nan", "inf", "undefined", "None", "True", "-inf", "N/A"]
)
@pytest.mark.parametrize("version", [2, 3])
def test_words_that_json_does_not_have_are_passed_over(word, version, tmp_path):
    array(tmp_path / "a", zarr_format=version, attributes={"note": "NaN, None and [inf]"})
    document = tmp_path / "a" / ("zarr.json" if version == 3 else ".zarray")
    if word == "N/A" or version == 2:
        change(document, attributes={"valid": "?"}, zarr_format=version)
    else:
        change(document, attributes={"valid": "?"})
    text = document.read_text().replace('"?"', '"N/A"' if word == "N/A" else word)
    document.write_text("\ufeff" + text if word == "inf" else text)
    assert (voxels_of(tmp_path / "a") == VOXELS).all()


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
class TestConsolidated:
    @pytest.fixture(params=[2, 3])
    def folder(self, request, tmp_path):
        """A group with an image in it whose only documents are those that the group gathered."""
        root, version = tmp_path / "root", request.param
        zarr.open_group(root, mode="w", zarr_format=version)
        image = multiscales("0.4" if version == 2 else "0.5")
        named = {"multiscales": image} if version == 2 else {"ome": {"version": "0.5", "multiscales": image}}
        zarr.open_group(root / "em", mode="w", zarr_format=version).attrs.update(named)
        array(root / "em" / "s0", zarr_format=version)
        zarr.consolidate_metadata(root, zarr_format=version)
        kept = root / (".zmetadata" if version == 2 else "zarr.json")
        for document in (*root.rglob(".z*"), *root.rglob("zarr.json")):
            if document != kept:
                document.unlink()
        return root

    def test_an_image_is_found_by_what_a_group_above_it_gathered(self, folder):
        source = open_source(folder / "em")
        assert source.spec.frame == FRAME
        assert (source.read(WHOLE) == VOXELS).all()

    def test_so_is_one_level_of_it(self, folder):
        source = open_source(folder / "em" / "s0")
        assert source.spec.frame == FRAME
        assert (source.read(WHOLE) == VOXELS).all()

    def test_a_document_of_its_own_comes_first(self, folder):
        array(folder / "em" / "s0", 255 - VOXELS, zarr_format=2, overwrite=True, compressors=None)
        assert (open_source(folder / "em").read(WHOLE) == 255 - VOXELS).all()


class TestVersions:
    @pytest.mark.parametrize("version", ["0.1", "0.2", "0.3", "0.4", 0.4, "0.4-dev", None, "latest"])
    def test_images_of_three_dimensions_without_axes_are_read(self, version, tmp_path):
        write_json(tmp_path / ".zattrs", {"multiscales": [{"version": version, "datasets": [{"path": "0"}]}]})
        array(tmp_path / "0", zarr_format=2)
        assert (voxels_of(tmp_path) == VOXELS).all()

    @pytest.mark.parametrize("version", ["0.7", "1.0", "2.0.dev1", 0.9])
    def test_a_version_that_is_not_read_is_named(self, version, tmp_path):
        write_json(tmp_path / ".zattrs", {"multiscales": [{"version": version, "datasets": [{"path": "0"}]}]})
        array(tmp_path / "0", zarr_format=2)
        with pytest.raises(SourceError, match=str(version)[:3]):
            voxels_of(tmp_path)

    @pytest.mark.parametrize("version", ["0.6", "0.6.dev3"])
    @pytest.mark.parametrize("is_sequence", [True, False])
    def test_axes_of_a_coordinate_system_are_read(self, version, is_sequence, tmp_path):
        image, *_ = multiscales(version)
        image["coordinateSystems"] = [
            {"name": "physical", "axes": image.pop("axes")},
            {"name": "atlas", "axes": []},
        ]
        image["coordinateTransformations"] = [{"type": "affine", "input": "physical", "output": "atlas"}]
        dataset = image["datasets"][0]
        if is_sequence:
            steps = [{"type": "sequence", "transformations": dataset["coordinateTransformations"]}]
            dataset["coordinateTransformations"] = steps
        group = zarr.open_group(tmp_path, mode="w")
        group.attrs["ome"] = {"version": version, "multiscales": [image]}
        array(tmp_path / "s0")
        source = open_source(tmp_path)
        assert source.spec.frame == FRAME
        assert source.spec.format == "ome-zarr 0.6"

    def test_a_transformation_that_is_not_read_names_itself_and_the_version(self, tmp_path):
        image, *_ = multiscales("0.6")
        image["coordinateSystems"] = [{"name": "physical", "axes": image.pop("axes")}]
        image["datasets"][0]["coordinateTransformations"] = [{"type": "rotation"}]
        group = zarr.open_group(tmp_path, mode="w")
        group.attrs["ome"] = {"version": "0.6", "multiscales": [image]}
        with pytest.raises(SourceError, match=r"0\.6: found 'rotation'"):
            open_source(tmp_path)


@pytest.mark.parametrize("path", ["s0", "./s0", "s0/", ".//s0//", "./s0/."])
def test_a_path_may_be_written_otherwise(path, tmp_path):
    ome_zarr_04(tmp_path)
    image = json.loads((tmp_path / ".zattrs").read_text())["multiscales"]
    image[0]["datasets"][0]["path"] = path
    change(tmp_path / ".zattrs", multiscales=image)
    source = open_source(f"{tmp_path}/./", level="s0")
    assert source.spec.level == "s0"
    assert (source.read(WHOLE) == VOXELS).all()


class TestDeclaredLevels:
    def test_the_finest_level_that_is_there_is_used(self, tmp_path):
        ome_zarr_04(tmp_path)
        image = json.loads((tmp_path / ".zattrs").read_text())["multiscales"]
        finer = {"path": "s9", "coordinateTransformations": [{"type": "scale", "scale": [20, 2, 2]}]}
        image[0]["datasets"].insert(0, finer)
        change(tmp_path / ".zattrs", multiscales=image)
        assert open_source(tmp_path).spec.level == "s0"
        with pytest.raises(SourceError, match="s9 holds no zarr array"):
            open_source(tmp_path, level="s9")


class TestNan:
    @pytest.fixture
    def path(self, tmp_path):
        voxels = VOXELS.astype("f4")
        voxels[2, 3:5] = np.nan
        return array(tmp_path / "a", voxels)

    def test_it_is_refused_by_default_and_the_policy_is_named(self, path):
        with pytest.raises(DataError, match=r"NaN.*nan as fill"):
            voxels_of(path, window=(0, 255))

    @pytest.mark.parametrize("window", [(0, 255), (-100, 50), (300, 400)])
    def test_filled_it_is_black_whatever_the_window(self, path, window):
        filled = voxels_of(path, window=window, nan="fill")
        assert not filled[2, 3:5].any()
        assert (filled[3:] == voxels_of(path, window=window, nan="fill")[3:]).all()
        if window == (0, 255):
            assert (np.delete(filled, 2, 0) == np.delete(VOXELS, 2, 0)).all()


NUMCODECS = {
    "lz4": ("u1", {"compressors": numcodecs.LZ4()}),
    "lzma": ("u1", {"compressors": numcodecs.LZMA(preset=1)}),
    "pcodec": ("u2", {"compressors": numcodecs.PCodec()}),
    "delta zlib": ("u1", {"filters": [numcodecs.Delta("u1")], "compressors": numcodecs.Zlib(1)}),
    "delta shuffle bz2": (
        ">u2",
        {"filters": [numcodecs.Delta("u2"), numcodecs.Shuffle(2)], "compressors": numcodecs.BZ2(1)},
    ),
    "fixedscaleoffset blosc": (
        "f4",
        {"filters": [numcodecs.FixedScaleOffset(0, 1, "f4", "u1")], "compressors": numcodecs.Blosc()},
    ),
    "quantize zstd": ("f4", {"filters": [numcodecs.Quantize(3, "f4")], "compressors": numcodecs.Zstd()}),
    "bitround": ("f4", {"filters": [numcodecs.BitRound(16)], "compressors": None}),
    "astype": ("f4", {"filters": [numcodecs.AsType("u1", "f4")], "compressors": None}),
    "fletcher32 lz4": (
        "u1",
        {"filters": [numcodecs.Fletcher32()], "compressors": numcodecs.LZ4(), "order": "F"},
    ),
    "crc32 gzip": ("u1", {"filters": [numcodecs.CRC32()], "compressors": numcodecs.GZip(1)}),
}  # fmt: skip


class TestDecodedByZarrPython:
    @pytest.mark.parametrize("name", NUMCODECS)
    def test_codecs_of_version_2_that_tensorstore_lacks(self, name, tmp_path):
        dtype, options = NUMCODECS[name]
        array(tmp_path / "a", VOXELS.astype(dtype), zarr_format=2, **options)
        window = {} if dtype == "u1" else {"window": (0, 255)}
        source = open_source(tmp_path / "a", **GIVEN, **window)
        assert (source.read(WHOLE) == VOXELS).all()
        inner = Box((3, 5, 7), (9, 20, 30))
        assert (source.read(inner) == VOXELS[inner.slices]).all()
        chunk_files(tmp_path / "a")[0].unlink()
        with pytest.raises(MissingDataError):
            voxels_of(tmp_path / "a", **window)
        cut = chunk_files(tmp_path / "a")[-1]
        cut.write_bytes(cut.read_bytes()[:-5])
        with pytest.raises(CorruptDataError):
            open_source(tmp_path / "a", **GIVEN, **window).read(Box((10, 22, 36), SHAPE))

    @pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
    @pytest.mark.parametrize("location", [None, "start", "end"])
    def test_codecs_of_version_3_plain_and_in_shards(self, location, tmp_path):
        from zarr.codecs import numcodecs as of_zarr

        shards = {} if location is None else {"shards": {"shape": (10, 14, 32), "index_location": location}}
        codecs = {"filters": of_zarr.Delta(dtype="|u1"), "compressors": of_zarr.LZ4()}
        array(tmp_path / "a", **shards, **codecs)
        source = open_source(tmp_path / "a", **GIVEN)
        assert (source.read(WHOLE) == VOXELS).all()
        chunk_files(tmp_path / "a")[0].unlink()
        with pytest.raises(MissingDataError):
            voxels_of(tmp_path / "a")

    @pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
    def test_a_chunk_that_its_shard_does_not_have_is_missing(self, tmp_path):
        from zarr.codecs import numcodecs as of_zarr

        black = VOXELS.copy()
        black[:5, :7, :16] = 0
        stored = zarr.create_array(
            tmp_path / "a",
            shape=SHAPE,
            chunks=CHUNKS,
            shards=(10, 14, 32),
            dtype="u1",
            compressors=of_zarr.LZ4(),
        )
        stored[...] = black
        with pytest.raises(MissingDataError):
            voxels_of(tmp_path / "a")
        assert (voxels_of(tmp_path / "a", missing="fill") == black).all()

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("compressor", {"id": "pickle"}),
            ("filters", [{"id": "pickle"}]),
            ("filters", [{"id": "json2"}]),
            ("filters", [{"id": "vlen-bytes"}]),
            ("filters", [{"id": "delta", "dtype": "object"}]),
            ("filters", [{"id": "delta", "dtype": "|O"}]),
            ("filters", [{"id": "categorize", "labels": ["a"], "dtype": "O"}]),
            ("compressor", {"id": "lzma", "format": 3, "filters": []}),
        ],
    )
    def test_a_codec_that_is_not_known_is_refused_by_name(self, key, value, tmp_path):
        array(tmp_path / "a", zarr_format=2)
        change(tmp_path / "a" / ".zarray", **{key: value})
        named = value if isinstance(value, dict) else value[0]
        with pytest.raises(SourceError, match=named["id"]):
            voxels_of(tmp_path / "a")
