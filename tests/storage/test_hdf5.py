"""HDF5: a dataset by its path, axes by their names, sizes where a unit is known; no other files."""

import json

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored_volumes import CHUNKS, FRAME, GIVEN, SHAPE, VOXELS, hdf5_cremi

from vemdiffuse_pipe.errors import CorruptDataError, MissingDataError, SourceError, VemdiffuseError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage import open_mask, open_source
from vemdiffuse_pipe.testing import position_coded

WHOLE = Box.of_shape(SHAPE)


def dataset(path, voxels=VOXELS, name="volumes/raw", attributes=(), **options):
    with h5py.File(path, "a") as file:
        made = file.create_dataset(name, data=voxels, **options)
        made.attrs.update(dict(attributes))
    return path / name


def tags(axes, **resolution):
    return {"axistags": json.dumps({"axes": [{"key": a, "resolution": resolution.get(a, 0)} for a in axes]})}


def read(address, **options):
    source = open_source(address, **options)
    return source.read(Box.of_shape(source.spec.shape))


def test_cremi_file_has_one_grey_volume_and_labels_by_their_path(tmp_path):
    path = tmp_path / "sample.hdf"
    hdf5_cremi(path)
    source = open_source(path)
    assert source.spec.url == str(path / "volumes/raw")
    assert (source.spec.frame, source.spec.format, source.spec.chunk_shape) == (FRAME, "hdf5", CHUNKS)
    assert (source.read(WHOLE) == VOXELS).all()
    labels = open_mask(path / "volumes/labels/neuron_ids", **GIVEN)
    assert (labels.read(WHOLE) == (VOXELS > 9)).all()


def test_several_volumes_are_refused_by_name(tmp_path):
    dataset(tmp_path / "a.h5", name="raw")
    dataset(tmp_path / "a.h5", name="prediction")
    with pytest.raises(SourceError, match=r"one of its datasets.*prediction \(11, 23, 37\) uint8, raw"):
        open_source(tmp_path / "a.h5", **GIVEN)
    with pytest.raises(SourceError, match=r"no rav.*prediction"):
        open_source(tmp_path / "a.h5/rav", **GIVEN)
    with pytest.raises(SourceError, match="no raw/0"):
        open_source(tmp_path / "a.h5/raw/0", **GIVEN)
    assert (read(tmp_path / "a.h5" / "raw", **GIVEN) == VOXELS).all()


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data(), st.permutations("zyx"), st.integers(1, 3), st.booleans(), st.booleans())
def test_axes_are_read_by_their_names(tmp_path_factory, data, space, n_channels, chunked, by_labels):
    address = tmp_path_factory.mktemp("h5") / "a.h5"
    axes = list(space)
    for axis in data.draw(st.lists(st.sampled_from("ct"), unique=True, max_size=2)):
        axes.insert(data.draw(st.integers(0, len(axes))), axis)
    counts = {"z": 4, "y": 5, "x": 7, "c": n_channels if "c" in axes else 1, "t": 1}
    volume = position_coded((counts["c"], 4, 5, 7))
    full = volume.reshape(counts["c"], 1, 4, 5, 7)  # c t z y x
    stored = full.transpose(
        ["ctzyx".index(a) for a in axes] + ["ctzyx".index(a) for a in "ct" if a not in axes]
    )
    stored = stored.reshape([counts[a] for a in axes])
    options = {"chunks": tuple(min(counts[a], 3) for a in axes)} if chunked else {}
    found = dataset(address, stored, attributes={} if by_labels else tags(axes), **options)
    if by_labels:
        with h5py.File(address, "a") as file:
            for dimension, axis in zip(file["volumes/raw"].dims, axes, strict=True):
                dimension.label = axis
    channel = data.draw(st.integers(0, counts["c"] - 1))
    source = open_source(found, voxel_size_nm=(40, 5, 4), channel=channel)
    box = Box((1, 0, 2), (4, 4, 7))
    assert (source.read(box) == volume[channel][box.slices]).all()


@pytest.mark.parametrize(
    ("shape", "attributes", "words"),
    [
        ((2, 11, 23, 37), {}, "no names of its axes"),
        ((23, 37), {}, "no names of its axes"),
        ((2, 11, 23, 37), tags("tzyx"), "2 along t"),
        ((2, 11, 23, 37), tags("czyx"), "2 channels.*--channel"),
        ((11, 23, 37), tags("zyxc"), "3 axes, which are named"),
        ((11, 23, 37), tags("zyc"), "axes z, y, c"),
        ((11, 23, 37), {"axistags": "{"}, "not JSON"),
        ((11, 23, 37), {"axistags": "[]"}, "axistags"),
    ],
)
def test_axes_that_are_not_certain_are_refused(shape, attributes, words, tmp_path):
    address = dataset(tmp_path / "a.h5", np.ones(shape, np.uint8), attributes=attributes)
    with pytest.raises(SourceError, match=words):
        open_source(address, **GIVEN)


def test_axes_without_names_are_zyx_and_those_of_length_1_do_not_count(tmp_path):
    assert (read(dataset(tmp_path / "a.h5", VOXELS[None, ..., None]), **GIVEN) == VOXELS).all()
    matlab = dataset(tmp_path / "b.mat", VOXELS.transpose(0, 2, 1), attributes={"MATLAB_class": b"uint8"})
    assert (read(matlab, **GIVEN) == VOXELS).all()


@pytest.mark.parametrize(
    ("attributes", "size", "corner"),
    [
        ({"resolution": [40, 5, 4], "offset": [400.0, 50.0, 4.0]}, (40, 5, 4), (400, 50, 4)),
        ({"resolution": np.float32([40, 4.3, 4.3])}, (40, "4.3", "4.3"), (0, 0, 0)),
        ({"resolution": [0.04, 0.005, 0.004], "units": "um"}, (40, 5, 4), (0, 0, 0)),
        ({"resolution": [400, 50, 40], "unit": b"angstrom", "offset": [10, 0, 0]}, (40, 5, 4), (1, 0, 0)),
        ({"resolution": [40, 5, 4], "units": ["nm", "nm", "nm"]}, (40, 5, 4), (0, 0, 0)),
        ({"element_size_um": [0.04, 0.005, 0.004]}, (40, 5, 4), (0, 0, 0)),
        (
            tags("zyx", z=0.04, y=5, x=4) | {"axis_units": json.dumps({"z": "um", "y": "nm", "x": "nm"})},
            (40, 5, 4),
            (0, 0, 0),
        ),
    ],
)
def test_sizes_are_read_where_their_unit_is_known(attributes, size, corner, tmp_path):
    frame = open_source(dataset(tmp_path / "a.h5", attributes=attributes)).spec.frame
    assert list(map(float, frame.voxel_size_nm)) == list(map(float, size))
    assert frame.corner_nm == corner


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"resolution": [40, 5, 4], "units": "furlong"},
        {"resolution": [40, 5, 4], "units": ["um", "nm", "nm"]},
        {"resolution": [40.0, 0.0, 4.0]},
        {"resolution": [40.0, 5.0]},
        {"resolution": "40 5 4"},
        {"resolution": [40, 5, 4]} | tags("xyz"),
        tags("zyx", z=40, y=5, x=4),
    ],
)
def test_size_that_is_not_certain_is_asked_for(attributes, tmp_path):
    address = dataset(tmp_path / "a.h5", attributes=attributes)
    with pytest.raises(SourceError, match="--voxel-size Z Y X"):
        open_source(address)


def test_nan_and_endless_numbers_are_refused(tmp_path):
    for value in (np.nan, np.inf):
        (tmp_path / "a.h5").unlink(missing_ok=True)
        address = dataset(tmp_path / "a.h5", attributes={"resolution": [40.0, value, 4.0]})
        with pytest.raises(SourceError, match=r"resolution.*finite"):
            open_source(address)


@pytest.mark.parametrize("dtype", [">i2", "<i2", "i1", ">f4", ">u2"])
def test_types_are_read_through_a_window_in_either_order_of_bytes(dtype, tmp_path):
    shown = VOXELS.astype(np.int32) - (128 if np.dtype(dtype).kind == "i" else 0)
    address = dataset(tmp_path / "a.h5", shown.astype(dtype), compression="gzip", shuffle=True)
    low = int(np.dtype(dtype).kind == "i") * -128
    assert (read(address, **GIVEN, window=(low, low + 255)) == VOXELS).all()


def test_bigdataviewer_writes_unsigned_numbers_as_signed_ones(tmp_path):
    address = dataset(
        tmp_path / "a.h5", (VOXELS.astype(np.uint16) * 257).view(np.int16), "t00000/s00/0/cells"
    )
    assert (read(address, **GIVEN, window=(0, 65535)) == VOXELS).all()


def test_chunk_that_was_never_written_is_missing_and_is_not_black(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", SHAPE, np.uint8, chunks=CHUNKS)[:5] = VOXELS[:5]
        file.create_dataset("none", SHAPE, np.uint8)
    source = open_source(tmp_path / "a.h5/raw", **GIVEN)
    assert (source.read(Box((0, 0, 0), (5, 23, 37))) == VOXELS[:5]).all()
    with pytest.raises(MissingDataError, match=r"chunk \[5:10, .* never written"):
        source.read(WHOLE)
    holes = []
    filled = open_source(tmp_path / "a.h5/raw", **GIVEN, missing="fill").read(WHOLE, holes.append)
    assert (filled[5:] == 0).all()
    assert holes
    with pytest.raises(MissingDataError, match="never written"):
        read(tmp_path / "a.h5/none", **GIVEN)


def test_chunk_that_cannot_be_decoded_is_corrupt(tmp_path):
    address = dataset(tmp_path / "a.h5", chunks=CHUNKS, compression="gzip")
    with h5py.File(tmp_path / "a.h5") as file:
        chunk = file["volumes/raw"].id.get_chunk_info(0)
    data = bytearray((tmp_path / "a.h5").read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + 8] = b"\xff" * 8
    (tmp_path / "a.h5").write_bytes(data)
    with pytest.raises(CorruptDataError):
        read(address, **GIVEN)
    assert (read(address, **GIVEN, corrupt="fill")[: CHUNKS[0], : CHUNKS[1], : CHUNKS[2]] == 0).all()


class TestOtherFiles:
    """A file that points at others is refused before any of them is looked at."""

    @pytest.fixture
    def file(self, tmp_path):
        dataset(tmp_path / "secret.h5", name="raw")
        with h5py.File(tmp_path / "a.h5", "w") as file:
            yield file

    def test_links_within_the_file_are_followed(self, file, tmp_path):
        file["deep/raw"] = VOXELS
        file["linked"] = h5py.SoftLink("/deep/raw")
        file["deep/again"] = h5py.SoftLink("raw")
        file["group"] = h5py.SoftLink("deep")
        file["loop"] = h5py.SoftLink("loop")
        file.close()
        for path in ("linked", "deep/again", "group/raw", "group/again"):
            assert (read(tmp_path / "a.h5" / path, **GIVEN) == VOXELS).all()
        with pytest.raises(SourceError, match="leads on and on"):
            open_source(tmp_path / "a.h5/loop", **GIVEN)

    def test_links_to_others_are_not(self, file, tmp_path):
        file["linked"] = h5py.ExternalLink("secret.h5", "/raw")
        file["soft"] = h5py.SoftLink("linked")
        file.close()
        for path in ("linked", "soft"):
            with pytest.raises(SourceError, match="link to another file"):
                open_source(tmp_path / "a.h5" / path, **GIVEN)
        with pytest.raises(SourceError, match="no dataset"):
            open_source(tmp_path / "a.h5", **GIVEN)

    def test_voxels_in_others_are_not(self, file, tmp_path):
        virtual = h5py.VirtualLayout(SHAPE, np.uint8)
        virtual[:] = h5py.VirtualSource("secret.h5", "raw", SHAPE)
        file.create_virtual_dataset("virtual", virtual)
        (tmp_path / "raw.bin").write_bytes(VOXELS.tobytes())
        file.create_dataset(
            "external", SHAPE, np.uint8, external=[(str(tmp_path / "raw.bin"), 0, VOXELS.size)]
        )
        file.close()
        for path in ("virtual", "external"):
            with pytest.raises(SourceError, match="in other files"):
                open_source(tmp_path / "a.h5" / path, **GIVEN)


def test_filter_that_is_not_installed_is_named(tmp_path):
    dataset(tmp_path / "a.h5", chunks=CHUNKS, name="plain")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk(CHUNKS)
        properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
        space = h5py.h5s.create_simple(SHAPE)
        h5py.h5d.create(file.id, b"packed", h5py.h5t.NATIVE_UINT8, space, properties)
    with pytest.raises(SourceError, match=r"HDF5 filter .*32015|HDF5 filter .*zstd"):
        open_source(tmp_path / "a.h5/packed", **GIVEN)


def test_any_changed_bytes_give_a_sentence_or_voxels(tmp_path):
    path = tmp_path / "a.h5"
    dataset(path, name="raw", chunks=CHUNKS, compression="gzip", attributes={"resolution": [40, 5, 4]})
    data = path.read_bytes()

    @settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=4)), min_size=1, max_size=3)
    )
    def check(changes):
        hostile = bytearray(data)
        for spot, value in changes:
            hostile[spot : spot + len(value)] = value
        path.write_bytes(hostile)
        try:
            open_source(path / "raw", **GIVEN).read(Box((0, 0, 0), (1, 1, 1)))
        except VemdiffuseError:
            return

    check()
