"""Every output is written in whole shards, and read by the programs of others."""

import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from itertools import product

import numpy as np
import ome_zarr_models.v04
import ome_zarr_models.v05
import pytest
import tensorstore as ts
import zarr
from stored_volumes import chunk_files

from vemdiffuse_pipe.errors import (
    CorruptDataError,
    MisalignedWriteError,
    MissingDataError,
    OutputError,
    StorageFullError,
)
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.geometry.gaps import Provenance
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.storage import create_sink, objects, open_sink, open_source
from vemdiffuse_pipe.testing import position_coded

SHAPE = (11, 23, 37)
VOXELS = position_coded(SHAPE)
FRAME = Frame(
    SHAPE, (Fraction(50, 11), Fraction(4), Fraction("4.3")), (Fraction(25), Fraction(-7, 3), Fraction(0))
)
WHOLE = FRAME.box
PROVENANCE = np.array([1, 2, 2, 2, 2, 1, 3, 3, 0, 3, 1], np.uint8)
ATTRIBUTES = {"run": "8c1f", "seed": 1, "uncertainty_scale": 0.25}
KINDS = {
    "0.5-sharded": {"output_format": "ome-zarr-0.5", "chunk_shape": (4, 8, 8), "shard_shape": (8, 16, 16)},
    "0.5-one-chunk-a-shard": {
        "output_format": "ome-zarr-0.5",
        "chunk_shape": (5, 7, 16),
        "shard_shape": (5, 7, 16),
    },
    "0.5-larger-than-the-volume": {
        "output_format": "ome-zarr-0.5",
        "chunk_shape": (16, 32, 64),
        "shard_shape": (16, 32, 64),
    },
    "0.4": {"output_format": "ome-zarr-0.4", "chunk_shape": (8, 16, 16), "shard_shape": (8, 16, 16)},
    "n5": {"output_format": "n5", "chunk_shape": (8, 16, 16), "shard_shape": (8, 16, 16)},
    "precomputed": {"output_format": "precomputed", "chunk_shape": (8, 16, 16), "shard_shape": (8, 16, 16)},
    "precomputed-sharded": {
        "output_format": "precomputed",
        "chunk_shape": (4, 8, 8),
        "shard_shape": (8, 16, 16),
    },
    "precomputed-one-shard": {
        "output_format": "precomputed",
        "chunk_shape": (4, 8, 8),
        "shard_shape": (16, 32, 64),
    },
}
NGFF = [kind for kind in KINDS if kind[0] == "0"]
PRECOMPUTED = [kind for kind in KINDS if kind.startswith("precomputed")]


def create(path, frame=FRAME, attributes=ATTRIBUTES, **options):
    options = {"provenance": PROVENANCE} | KINDS["0.5-sharded"] | options
    return create_sink(path, frame, attributes=attributes, **options)


def shards(sink):
    grid = BlockGrid(sink.spec.shape, sink.spec.shard_shape)
    return [grid.box(i) for i in range(grid.n_blocks)]


def snapshot(path):
    return {str(f.relative_to(path)): f.read_bytes() for f in sorted(path.rglob("*")) if f.is_file()}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "out.zarr"


@pytest.fixture
def sink(kind, path):
    return create(path, **KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
class TestEverySink:
    def test_spec_is_what_was_asked_for(self, sink, kind):
        assert sink.spec.frame == FRAME
        assert sink.spec.chunk_shape == KINDS[kind]["chunk_shape"]
        assert sink.spec.shard_shape == KINDS[kind]["shard_shape"]
        assert sink.spec.format.replace(" ", "-") == KINDS[kind]["output_format"]
        assert sink.arrays == ("em", "uncertainty")

    def test_what_is_written_is_read_back(self, sink):
        for box in shards(sink):
            sink.write("em", box, VOXELS[box.slices])
            assert (sink.read("em", box) == VOXELS[box.slices]).all()
        assert (sink.read("em", Box((1, 2, 3), (10, 20, 30))) == VOXELS[1:10, 2:20, 3:30]).all()

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

    def test_unwritten_is_missing(self, sink):
        first, *_ = shards(sink)
        sink.write("em", first, VOXELS[first.slices])
        with pytest.raises(MissingDataError, match="uncertainty"):
            sink.read("uncertainty", first)

    def test_black_is_stored(self, sink):
        sink.write("em", WHOLE, np.zeros(SHAPE, np.uint8))
        assert (sink.read("em", WHOLE) == 0).all()

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


def foreign_zarr(path):
    zarr.create_group(path).create_array("0", data=VOXELS)


def foreign_file_in_folder(path):
    path.mkdir()
    (path / "thesis.tex").write_text("years of work")


def output_of_another_run(path):
    create(path, attributes={"run": "other"})


def interrupted_output_of_another_shape(path):
    create(path, chunk_shape=(8, 8, 8))
    (path / "zarr.json").unlink()


@pytest.mark.parametrize(
    "write",
    [foreign_zarr, foreign_file_in_folder, output_of_another_run, interrupted_output_of_another_shape],
)
def test_what_is_there_is_never_written_over(write, tmp_path):
    path = tmp_path / "place"
    write(path)
    before = snapshot(path)
    with pytest.raises(OutputError, match="nothing is ever written over"):
        create(path)
    assert snapshot(path) == before


def test_empty_folder_is_a_place(tmp_path):
    assert create(tmp_path).spec.shape == SHAPE


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"chunk_shape": (3, 8, 8)}, "do not divide"),
        ({"chunk_shape": (0, 8, 8)}, "do not divide"),
        ({"shard_shape": (1 << 12, 1 << 12, 1 << 12)}, "4 GiB"),
        ({"output_format": "ome-zarr-0.4"}, "no shards"),
        ({"provenance": PROVENANCE[:-1]}, "11 planes"),
        ({"arrays": ()}, "names"),
        ({"arrays": ("em", "em")}, "names"),
        ({"arrays": ("em", "provenance")}, "names"),
        ({"arrays": ("em", "../x")}, "names"),
    ],
)
def test_output_that_cannot_be_is_refused_and_nothing_is_made(options, word, tmp_path):
    with pytest.raises(OutputError, match=word):
        create(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("inside", ["", "out", "deep/out"])
def test_place_below_a_file_is_refused(inside, tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(OutputError, match="is a file"):
        create(tmp_path / "file" / inside)


@pytest.mark.skipif(not os.path.ismount("/sys"), reason="no read-only file system is known here")
def test_read_only_place_is_refused():
    with pytest.raises(OutputError, match=r"not permitted|denied|Read-only"):
        create("/sys/vemdiffuse")


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b'{"attributes": {"vemdiffuse": 1}}'])
@pytest.mark.parametrize("kind", ["0.4", "0.5-sharded"])
def test_damaged_output_is_not_opened(damage, kind, tmp_path):
    create(tmp_path, **KINDS[kind])
    (tmp_path / (".zattrs" if kind == "0.4" else "zarr.json")).write_bytes(damage)
    with pytest.raises(OutputError, match=r"no output (that can be continued|of vemdiffuse)"):
        open_sink(tmp_path)


@pytest.mark.parametrize("hostile", ["1e999999999", "1/0", "nan", 5, None, "9" * 5000])
def test_hostile_frame_of_an_output_is_refused(hostile, tmp_path):
    create(tmp_path)
    document = json.loads((tmp_path / "zarr.json").read_text())
    document["attributes"]["vemdiffuse_sink"]["voxel_size_nm"][0] = hostile
    (tmp_path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(OutputError, match=r"fraction|quotes"):
        open_sink(tmp_path)


def test_source_is_no_output(tmp_path):
    foreign_zarr(tmp_path / "volume")
    with pytest.raises(OutputError, match="vemdiffuse"):
        open_sink(tmp_path / "volume")
    with pytest.raises(OutputError):
        open_sink(tmp_path / "nowhere")


FILL = """
import resource, signal, sys
import numpy as np
from fractions import Fraction
from vemdiffuse_pipe.errors import StorageFullError
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.storage import create_sink
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
frame = Frame((64, 64, 256), (Fraction(4),) * 3)
sink = create_sink(sys.argv[1], frame, chunk_shape=(64,) * 3, shard_shape=(64,) * 3, attributes={},
                   provenance=np.zeros(64, np.uint8))
noise = np.random.default_rng(0).integers(0, 256, frame.shape, np.uint8)
sink.write("em", frame.box, noise)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    sink.write("uncertainty", frame.box, noise)
except StorageFullError as error:
    print("full:", error)
assert (sink.read("em", frame.box) == noise).all()
"""


def test_full_disk_is_said_and_damages_nothing(tmp_path):
    command = [sys.executable, "-W", "error", "-c", FILL, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("full: uncertainty [0:64, 0:64, 0:256]")
    assert chunk_files(tmp_path / "out" / "uncertainty") == []


WRITE_FOREVER = """
import sys
import numpy as np
from vemdiffuse_pipe.storage import open_sink
sink = open_sink(sys.argv[1])
print("ready", flush=True)
while True:
    for grey in range(256):
        sink.write("em", sink.spec.frame.box, np.full(sink.spec.shape, grey, np.uint8))
"""


def test_killed_writer_leaves_whole_shards(tmp_path):
    sink = create(tmp_path / "out")
    sink.write("em", WHOLE, VOXELS)
    for delay_s in (0.0, 0.02, 0.05, 0.11):
        command = [sys.executable, "-c", WRITE_FOREVER, str(tmp_path / "out")]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert writer.stdout.readline() == b"ready\n"
        try:
            writer.wait(delay_s)
        except subprocess.TimeoutExpired:
            writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        for box in shards(sink):
            voxels = sink.read("em", box)
            assert (voxels == voxels.flat[0]).all() or (voxels == VOXELS[box.slices]).all()
    sink.write("em", WHOLE, VOXELS)
    assert (sink.read("em", WHOLE) == VOXELS).all()


def test_full_disk_error_names_the_object(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFullError, match=r"em/zarr\.json cannot be written: No space left"):
        create(tmp_path / "out")
