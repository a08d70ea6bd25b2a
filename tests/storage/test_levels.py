"""Levels are chosen by their size in nanometres, and lie where their format says."""

from fractions import Fraction

import numpy as np
import pytest
import tensorstore as ts
import zarr
from stored_volumes import (
    CHUNKS,
    FRAME,
    SHAPE,
    SIZE_NM,
    SIZE_XYZ,
    VOXELS,
    add_attributes,
    cosem_transform,
    n5,
    ome_zarr_04,
    precomputed,
    precomputed_by_cloudvolume,
    write_json,
)

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.storage import open_source

HALF = np.ascontiguousarray(VOXELS[:, ::2, ::2])
HALF_NM = (Fraction(40), Fraction("8.6"), Fraction("8.6"))


def ome_zarr_pyramid(path, unit="nanometer"):
    group = zarr.open_group(path, mode="w", zarr_format=2)
    levels = {"fine": (VOXELS, SIZE_NM), "coarse": (HALF, HALF_NM)}
    datasets = []
    for name, (voxels, size) in levels.items():
        zarr.create_array(path / name, data=voxels, chunks=CHUNKS, zarr_format=2)
        steps = [
            {"type": "scale", "scale": [float(s) for s in size]},
            {"type": "translation", "translation": [float(s / 2) for s in size]},
        ]
        datasets.append({"path": name, "coordinateTransformations": steps})
    axes = [{"name": a, "type": "space", "unit": unit} for a in "zyx"]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets[::-1]}]


def n5_pyramid(path, attributes=None):
    n5(path / "s0", {})
    n5(path / "s1", {}, voxels=HALF)
    resolution = {"pixelResolution": {"dimensions": SIZE_XYZ, "unit": "nm"}}
    add_attributes(path, {"scales": [[1, 1, 1], [2, 2, 1]], **(attributes or resolution)})


def n5_bigdataviewer_pyramid(path):
    for k, voxels in enumerate((VOXELS, HALF)):
        n5(path / "timepoint0" / f"s{k}", {}, voxels=voxels)
    add_attributes(path, {"downsamplingFactors": [[1, 1, 1], [2, 2, 1]]})
    add_attributes(path / "timepoint0", {"resolution": SIZE_XYZ})


def precomputed_pyramid(path):
    precomputed(path)
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": f"file://{path}/",
        "scale_metadata": {
            "key": "coarse",
            "size": HALF.shape[::-1],
            "chunk_size": CHUNKS[::-1],
            "resolution": [8.6, 8.6, 40],
            "encoding": "raw",
        },
        "multiscale_metadata": {"type": "image", "data_type": "uint8", "num_channels": 1},
    }
    ts.open(spec, create=True).result()[..., 0].write(HALF.T).result()


@pytest.mark.parametrize("write", [ome_zarr_pyramid, n5_pyramid, precomputed_pyramid])
class TestPyramid:
    @pytest.fixture
    def path(self, write, tmp_path):
        write(tmp_path / "volume")
        return tmp_path / "volume"

    def test_finest_level_is_the_default(self, path):
        source = open_source(path)
        assert source.spec.frame == FRAME
        assert source.spec.n_levels == 2

    @pytest.mark.parametrize("wanted", [(40, 8.6, 8.6), ("40", "8.6", "8.6"), (40.3, 8.55, 8.65)])
    def test_voxel_size_within_one_percent_chooses_the_level(self, path, wanted):
        source = open_source(path, voxel_size_nm=wanted)
        assert source.spec.frame == Frame(HALF.shape, HALF_NM)
        assert (source.read(source.spec.frame.box) == HALF).all()

    def test_every_level_has_its_corner_at_zero(self, path):
        for size in (SIZE_NM, HALF_NM):
            assert open_source(path, voxel_size_nm=size).spec.frame.corner_nm == (0, 0, 0)

    def test_unknown_size_lists_the_levels(self, path):
        with pytest.raises(SourceError, match="40 x 16 x 16") as caught:
            open_source(path, voxel_size_nm=(40, 16, 16))
        assert "(40 x 4.3 x 4.3 nm)" in str(caught.value)
        assert "(40 x 8.6 x 8.6 nm)" in str(caught.value)

    def test_level_is_chosen_by_name(self, path):
        name = open_source(path, voxel_size_nm=(40, 8.6, 8.6)).spec.level
        assert open_source(path, level=name).spec.frame.voxel_size_nm == HALF_NM

    def test_unknown_name_lists_the_levels(self, path):
        with pytest.raises(SourceError, match=r"'s7'.* nm\)"):
            open_source(path, level="s7")

    def test_name_and_size_must_agree(self, path):
        name = open_source(path).spec.level
        with pytest.raises(SourceError, match=r"40 x 8\.6"):
            open_source(path, level=name, voxel_size_nm=(40, 8.6, 8.6))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: ome_zarr_pyramid(path, unit="pixel"),
        lambda path: ome_zarr_pyramid(path, unit=None),
        lambda path: n5_pyramid(path, {"pixelResolution": SIZE_XYZ}),
        lambda path: n5_pyramid(path, {"resolution": SIZE_XYZ}),
        lambda path: n5_pyramid(path, {"pixelResolution": {"dimensions": SIZE_XYZ, "unit": "parsec"}}),
        n5_bigdataviewer_pyramid,
    ],
)
class TestWithoutUnit:
    def test_voxel_size_is_asked_for(self, write, tmp_path):
        write(tmp_path / "volume")
        with pytest.raises(SourceError, match="--voxel-size Z Y X"):
            open_source(tmp_path / "volume")

    def test_given_size_is_that_of_the_chosen_level(self, write, tmp_path):
        write(tmp_path / "volume")
        source = open_source(tmp_path / "volume", voxel_size_nm=(30, 4, 4))
        assert source.spec.frame == Frame(SHAPE, (Fraction(30), Fraction(4), Fraction(4)))


CORNER = (7 * SIZE_NM[0], 3 * SIZE_NM[1], -5 * SIZE_NM[2])


@pytest.mark.parametrize(
    "write",
    [
        lambda path: ome_zarr_04(path, corner=CORNER),
        lambda path: ome_zarr_04(path, corner=CORNER, unit="micrometer", nm=1000),
        lambda path: n5(path, cosem_transform(CORNER)),
        lambda path: n5(path, cosem_transform(CORNER, nm=1000, unit="um")),
        lambda path: precomputed(path, offset=(-5, 3, 7)),
        lambda path: precomputed_by_cloudvolume(path, "gzip", offset=(-5, 3, 7)),
    ],
    ids=["ome-zarr", "ome-zarr-um", "n5-cosem", "n5-cosem-um", "precomputed", "precomputed-gz"],
)
def test_negative_offset_is_kept_exactly(write, tmp_path):
    write(tmp_path / "volume")
    source = open_source(tmp_path / "volume")
    assert source.spec.frame == Frame(SHAPE, SIZE_NM, CORNER)
    assert (source.read(source.spec.frame.box) == VOXELS).all()


def test_offset_without_unit_keeps_its_ratio_to_the_voxel(tmp_path):
    ome_zarr_04(tmp_path / "volume", corner=CORNER, unit="pixel")
    doubled = [tuple(2 * length for length in lengths) for lengths in (SIZE_NM, CORNER)]
    assert open_source(tmp_path / "volume", voxel_size_nm=doubled[0]).spec.frame == Frame(SHAPE, *doubled)


def test_transformation_of_the_whole_image_comes_last(tmp_path):
    ome_zarr_pyramid(tmp_path)
    group = zarr.open_group(tmp_path, mode="r+")
    image = dict(group.attrs["multiscales"][0])
    image["coordinateTransformations"] = [
        {"type": "scale", "scale": [2, 2, 2]},
        {"type": "translation", "translation": [100, 10, 1]},
    ]
    group.attrs["multiscales"] = [image]
    doubled = tuple(2 * s for s in SIZE_NM)
    assert open_source(tmp_path).spec.frame == Frame(
        SHAPE, doubled, (Fraction(100), Fraction(10), Fraction(1))
    )


def test_unit_without_scale_is_no_size(tmp_path):
    ome_zarr_pyramid(tmp_path)
    group = zarr.open_group(tmp_path, mode="r+")
    image = dict(group.attrs["multiscales"][0])
    group.attrs["multiscales"] = [image | {"datasets": [{"path": "fine"}]}]
    with pytest.raises(SourceError, match="--voxel-size"):
        open_source(tmp_path)


def test_axes_are_found_by_name(tmp_path):
    group = zarr.open_group(tmp_path, mode="w", zarr_format=2)
    zarr.create_array(tmp_path / "0", data=np.ascontiguousarray(VOXELS.T)[None], zarr_format=2)
    axes = [{"name": "c", "type": "channel"}, *({"name": a, "type": "space", "unit": "nm"} for a in "xyz")]
    steps = [{"type": "scale", "scale": [1, *SIZE_XYZ]}]
    dataset = {"path": "0", "coordinateTransformations": steps}
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [dataset]}]
    source = open_source(tmp_path)
    assert source.spec.frame.voxel_size_nm == SIZE_NM
    assert (source.read(source.spec.frame.box) == VOXELS).all()


def test_image_older_than_units_needs_its_size(tmp_path):
    zarr.open_group(tmp_path, mode="w", zarr_format=2)
    zarr.create_array(tmp_path / "0", data=VOXELS[None, None], zarr_format=2)
    write_json(tmp_path / ".zattrs", {"multiscales": [{"version": "0.1", "datasets": [{"path": "0"}]}]})
    with pytest.raises(SourceError, match="--voxel-size"):
        open_source(tmp_path)
    source = open_source(tmp_path, voxel_size_nm=(40, 4.3, 4.3))
    assert source.spec.format == "ome-zarr 0.1"
    assert (source.read(source.spec.frame.box) == VOXELS).all()
