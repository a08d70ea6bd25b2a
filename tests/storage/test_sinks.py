"""Every output is written in whole shards, and read by the programs of others."""

import json
from fractions import Fraction
from itertools import product

import numpy as np
import ome_zarr_models.v04
import ome_zarr_models.v05
import pytest
import tensorstore as ts
import zarr
from sink_kinds import (
    ATTRIBUTES,
    FRAME,
    KINDS,
    NGFF,
    PRECOMPUTED,
    PROVENANCE,
    SHAPE,
    VOXELS,
    WHOLE,
    create,
    shards,
    snapshot,
)
from stored_volumes import chunk_files

from vemdiffuse_pipe.errors import (
    CorruptDataError,
    MisalignedWriteError,
    OutputError,
)
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.plane_groups import Provenance
from vemdiffuse_pipe.storage import objects, open_sink, open_source
from vemdiffuse_pipe.testing.sinks import SinkConformance


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "out.zarr"


@pytest.fixture
def sink(kind, path):
    return create(path, **KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
class TestEverySink(SinkConformance):
    def test_spec_is_what_was_asked_for(self, sink, kind):
        assert sink.spec.frame == FRAME
        assert sink.spec.chunk_shape == KINDS[kind]["chunk_shape"]
        assert sink.spec.shard_shape == KINDS[kind]["shard_shape"]
        assert sink.spec.format.replace(" ", "-") == KINDS[kind]["output_format"]
        assert sink.arrays == ("em", "uncertainty")

    def test_reopened_sink_is_the_same(self, sink, path):
        sink.write("em", WHOLE, VOXELS)
        again = open_sink(path)
        assert again.spec == sink.spec
        assert again.arrays == sink.arrays
        assert again.attributes == ATTRIBUTES
        assert (again.provenance == PROVENANCE).all()
        assert (again.read("em", WHOLE) == VOXELS).all()

    def test_order_of_writing_changes_no_byte(self, kind, sink, path, tmp_path):
        for box in shards(sink):
            sink.write("em", box, VOXELS[box.slices])
        other = create(tmp_path / "other", **KINDS[kind])
        for box in reversed(shards(other)):
            other.write("em", box, VOXELS[box.slices])
        assert snapshot(path) == snapshot(tmp_path / "other")

    def test_part_of_a_shard_is_refused_and_nothing_is_written(self, sink, path):
        before = snapshot(path)
        z, y, x = (min(n, s) for n, s in zip(SHAPE, sink.spec.shard_shape, strict=True))
        for shape, start in product([(z - 1, y, x), (z, y - 1, x), (z, y, x - 1)], [(0, 0, 0)]):
            with pytest.raises(MisalignedWriteError, match="nearest block shape"):
                sink.write("em", Box.of_shape(shape, start), np.zeros(shape, np.uint8))
        with pytest.raises(MisalignedWriteError):
            sink.write("em", Box((1, 0, 0), SHAPE), VOXELS[1:])
        assert snapshot(path) == before

    def test_damaged_shard_is_corrupt(self, sink, path):
        sink.write("em", WHOLE, VOXELS)
        shard = next(f for f in chunk_files(path / "em"))
        shard.write_bytes(shard.read_bytes()[:-20])
        with pytest.raises(CorruptDataError):
            sink.read("em", WHOLE)

    def test_writing_again_mends_a_damaged_shard(self, sink, path):
        sink.write("em", WHOLE, VOXELS)
        for shard in chunk_files(path / "em"):
            shard.write_bytes(b"x" * 5000)
        sink.write("em", WHOLE, VOXELS)
        assert (sink.read("em", WHOLE) == VOXELS).all()

    def test_what_a_killed_writer_left_does_not_get_into_a_shard(self, sink, path):
        sink.write("em", WHOLE, VOXELS)
        contents = {shard: shard.read_bytes() for shard in chunk_files(path / "em")}
        for shard in contents:
            shard.with_name(f"{shard.name}.__lock").write_bytes(b"x" * 50_000)
        sink.write("em", WHOLE, VOXELS)
        assert {shard: shard.read_bytes() for shard in contents} == contents

    def test_each_shard_is_one_object(self, sink, path):
        sink.write("em", WHOLE, VOXELS)
        assert len(chunk_files(path / "em")) == len(shards(sink))

    def test_it_is_a_source(self, sink, path, kind):
        sink.write("em", WHOLE, VOXELS)
        source = open_source(path / "em")
        assert (source.read(WHOLE) == VOXELS).all()
        for found, exact, size in zip(
            source.spec.frame.corner_nm, FRAME.corner_nm, FRAME.voxel_size_nm, strict=True
        ):
            whole = (exact / size + Fraction(1, 2)) // 1 * size  # precomputed: a whole number of voxels
            stated = whole if kind in PRECOMPUTED else exact
            assert abs(found - stated) < Fraction(1, 10**6)

    def test_provenance_names_its_codes(self, sink, path):
        array = zarr.open_array(path / "provenance", mode="r")
        assert (array[...] == PROVENANCE).all()
        assert array.attrs["codes"] == {str(p.value): p.name.lower() for p in Provenance}

    def test_creating_again_is_refused_and_changes_nothing(self, sink, path, kind):
        sink.write("em", WHOLE, VOXELS)
        before = snapshot(path)
        for attributes, word in ((ATTRIBUTES, "holds this output already"), ({"seed": 2}, "not empty")):
            with pytest.raises(OutputError, match=word):
                create(path, attributes=attributes, **KINDS[kind])
        assert snapshot(path) == before

    def test_creation_interrupted_anywhere_is_completed(self, kind, path, monkeypatch):
        contents = snapshot_of_creation(path.parent / "reference", kind)
        real = objects.write_bytes_if_absent
        for n in range(len(contents)):
            interrupted = path.parent / f"after-{n}"
            left = [n]

            def write(address, data, left=left):
                if left[0] == 0:
                    (address.path.parent).mkdir(parents=True, exist_ok=True)
                    (address.path.parent / ".x.1f.unfinished").write_bytes(b"torn")
                    raise KeyboardInterrupt
                left[0] -= 1
                real(address, data)

            monkeypatch.setattr(objects, "write_bytes_if_absent", write)
            with pytest.raises(KeyboardInterrupt):
                create(interrupted, **KINDS[kind])
            monkeypatch.setattr(objects, "write_bytes_if_absent", real)
            with pytest.raises(OutputError):
                open_sink(interrupted)
            create(interrupted, **KINDS[kind])
            found = snapshot(interrupted)
            assert {k: v for k, v in found.items() if not k.endswith(".unfinished")} == contents


@pytest.mark.parametrize("kind", NGFF)
class TestEveryOmeZarr:
    def test_zarr_python_reads_the_same(self, sink, path):
        sink.write("em", WHOLE, VOXELS)
        group = zarr.open_group(path, mode="r")
        assert (group["em/0"][...] == VOXELS).all()
        assert group.attrs["vemdiffuse"] == ATTRIBUTES
        assert set(group.group_keys()) == {"em", "uncertainty"}

    def test_tensorstore_reads_the_same(self, sink, path, kind):
        sink.write("em", WHOLE, VOXELS)
        driver = "zarr" if KINDS[kind]["output_format"] == "ome-zarr-0.4" else "zarr3"
        array = ts.open({"driver": driver, "kvstore": f"file://{path}/em/0/"}).result()
        assert (array.read().result() == VOXELS).all()
        assert array.chunk_layout.read_chunk.shape == KINDS[kind]["chunk_shape"]
        assert array.chunk_layout.write_chunk.shape == KINDS[kind]["shard_shape"]

    def test_metadata_is_valid_ngff(self, sink, path, kind):
        models = (
            ome_zarr_models.v04 if KINDS[kind]["output_format"] == "ome-zarr-0.4" else ome_zarr_models.v05
        )
        for name in sink.arrays:
            image = models.Image.from_zarr(zarr.open_group(path / name, mode="r"))
            (multiscale,) = (getattr(image.attributes, "ome", image.attributes)).multiscales
            assert [axis.unit for axis in multiscale.axes] == ["nanometer"] * 3
            (dataset,) = multiscale.datasets
            scale, translation = dataset.coordinateTransformations
            assert scale.scale == pytest.approx([float(s) for s in FRAME.voxel_size_nm], rel=1e-15)
            assert translation.translation == pytest.approx([float(c) for c in FRAME.centre_nm], rel=1e-15)


def test_tensorstore_reads_n5(tmp_path):
    sink = create(tmp_path / "out", **KINDS["n5"])
    sink.write("em", WHOLE, VOXELS)
    array = ts.open({"driver": "n5", "kvstore": f"file://{tmp_path}/out/em/s0/"}).result()
    assert (array.read().result().T == VOXELS).all()
    group = json.loads((tmp_path / "out" / "em" / "attributes.json").read_text())
    assert group["multiscales"][0]["datasets"][0]["transform"]["translate"] == pytest.approx(
        [float(c) for c in FRAME.centre_nm]
    )


@pytest.mark.parametrize("kind", PRECOMPUTED)
def test_cloudvolume_and_tensorstore_read_precomputed(kind, sink, path):
    from cloudvolume import CloudVolume

    sink.write("em", WHOLE, VOXELS)
    volume = CloudVolume(f"precomputed://file://{path}/em", progress=False)
    assert (np.asarray(volume[...])[..., 0].T == VOXELS).all()
    assert list(volume.resolution) == pytest.approx([float(s) for s in FRAME.voxel_size_nm[::-1]])
    assert volume.provenance.processing[0]["by"] == "vemdiffuse_pipe"
    spec = {"driver": "neuroglancer_precomputed", "kvstore": f"file://{path}/em/"}
    assert (ts.open(spec).result()[..., 0].read().result().T == VOXELS).all()


def snapshot_of_creation(path, kind):
    create(path, **KINDS[kind])
    return snapshot(path)
