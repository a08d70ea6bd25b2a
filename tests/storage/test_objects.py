"""Small objects are whole or absent."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from vemdiffuse_pipe.errors import DataError, OutputError, StorageFullError, TransientError
from vemdiffuse_pipe.storage import parse_address
from vemdiffuse_pipe.storage.objects import list_names, read_bytes, write_bytes_atomically


@pytest.fixture
def folder(tmp_path):
    return parse_address(tmp_path)


def test_what_is_written_is_read(folder):
    write_bytes_atomically(folder / "a" / "b" / "c.json", b"first")
    assert read_bytes(folder / "a" / "b" / "c.json") == b"first"
    write_bytes_atomically(folder / "a" / "b" / "c.json", b"")
    assert read_bytes(folder / "a" / "b" / "c.json") == b""


def test_reading_stops_where_it_is_told(folder):
    write_bytes_atomically(folder / "c", b"0123456789")
    assert read_bytes(folder / "c", 4) == b"0123"


def test_absent_object_is_none(folder):
    assert read_bytes(folder / "nothing") is None
    write_bytes_atomically(folder / "file", b"")
    assert read_bytes(folder / "file" / "below") is None


def test_folder_is_no_object(folder):
    with pytest.raises(DataError, match="directory"):
        read_bytes(folder)


def test_names_are_those_of_whole_objects(folder):
    for name in ("a", "b", "deep/c"):
        write_bytes_atomically(folder / name, b"")
    (folder / ".d.0f.unfinished").path.write_bytes(b"torn")
    assert sorted(list_names(folder)) == ["a", "b", "deep"]
    assert list(list_names(folder / "nowhere")) == []


def test_failed_write_leaves_the_old_object_and_nothing_else(folder, monkeypatch):
    write_bytes_atomically(folder / "a", b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StorageFullError, match="No space left"):
            write_bytes_atomically(folder / "a", b"new")
    assert read_bytes(folder / "a") == b"old"
    assert [path.name for path in folder.path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("code", "raised"),
    [
        (28, StorageFullError),
        (122, StorageFullError),
        (13, OutputError),
        (30, OutputError),
        (5, TransientError),
    ],
)
def test_error_of_the_system_becomes_one_of_ours(code, raised, folder, monkeypatch):
    def fail(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(raised):
        write_bytes_atomically(folder / "a", b"new")


def test_data_is_on_the_disk_before_it_has_its_name(folder, monkeypatch):
    seen = []
    real = os.fsync

    def fsync(descriptor):
        seen.append([path.name.startswith(".") for path in folder.path.iterdir()])
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_bytes_atomically(folder / "a", b"data")
    assert seen == [[True], [False]]


def test_writers_at_once_never_mix(folder):
    contents = [bytes([n]) * 100_000 for n in range(16)]
    with ThreadPoolExecutor(8) as threads:
        for _ in threads.map(lambda data: write_bytes_atomically(folder / "a", data), contents * 4):
            assert read_bytes(folder / "a") in contents
    assert [path.name for path in folder.path.iterdir()] == ["a"]
