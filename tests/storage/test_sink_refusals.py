"""What is there is never written over; what fails or is killed damages nothing."""

import json
import os
import signal
import subprocess
import sys

import pytest
import zarr
from sink_kinds import (
    KINDS,
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
    OutputError,
    StorageFullError,
)
from vemdiffuse_pipe.storage import open_sink


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
