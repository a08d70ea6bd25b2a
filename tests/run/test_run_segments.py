"""Segments: what was appended is read, what was torn is not."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from servers import BUCKET, s3

from vemdiffuse_pipe.errors import OutputError
from vemdiffuse_pipe.records.segments import SegmentReader, SegmentWriter, encode, read_lines
from vemdiffuse_pipe.storage import parse_address
from vemdiffuse_pipe.storage.address import Address


@pytest.fixture
def folder(tmp_path: Path) -> Address:
    return parse_address(tmp_path / "log")


def numbers(folder: Address) -> list[int]:
    return [json.loads(line)["n"] for _, line in read_lines(folder)]


def append(folder: Address, *values: int) -> None:
    writer = SegmentWriter(folder)
    for n in values:
        writer.append({"n": n})
    writer.close()


def only_segment(folder: Address) -> Path:
    (segment,) = folder.path.iterdir()
    return segment


def test_a_folder_that_is_not_there_holds_nothing(folder: Address) -> None:
    assert numbers(folder) == []


def test_records_come_back_in_the_order_of_writing(folder: Address) -> None:
    append(folder, 3, 1, 2)
    assert numbers(folder) == [3, 1, 2]


def test_a_line_is_json_with_its_own_checksum(folder: Address) -> None:
    append(folder, 5)
    record = json.loads(only_segment(folder).read_text())
    assert list(record) == ["check", "n"]


@pytest.mark.parametrize("n_lost", [1, 2, 9, 25])
def test_a_torn_last_line_is_ignored(folder: Address, n_lost: int) -> None:
    append(folder, 1, 2, 3)
    segment = only_segment(folder)
    segment.write_bytes(segment.read_bytes()[:-n_lost])
    assert numbers(folder) == [1, 2]


def test_a_line_with_one_changed_digit_is_ignored(folder: Address) -> None:
    append(folder, 1, 2, 3)
    segment = only_segment(folder)
    segment.write_bytes(segment.read_bytes().replace(b'"n":2', b'"n":7'))
    assert numbers(folder) == [1, 3]


def test_a_later_process_never_appends_to_the_segment_of_another(folder: Address) -> None:
    append(folder, 1)
    segment = only_segment(folder)
    segment.write_bytes(segment.read_bytes()[:-3])
    append(folder, 2)
    assert numbers(folder) == [2]
    assert len(list(folder.path.iterdir())) == 2


def test_after_a_failed_append_the_writer_begins_another_segment(
    folder: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SegmentWriter(folder)
    writer.append({"n": 1})
    torn = encode({"n": 2})[:-5]

    def full_disk(descriptor: int, line: bytes) -> None:
        with only_segment(folder).open("ab") as file:
            file.write(torn)
        raise PermissionError(13, "no")

    with monkeypatch.context() as patch:
        patch.setattr("vemdiffuse_pipe.records.segments._write", full_disk)
        with pytest.raises(OutputError):
            writer.append({"n": 2})
    writer.append({"n": 3})
    writer.close()
    assert sorted(numbers(folder)) == [1, 3]


def test_threads_that_share_a_writer_lose_nothing(folder: Address) -> None:
    writer = SegmentWriter(folder)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: writer.append({"n": n}), range(40)))
    writer.close()
    assert sorted(numbers(folder)) == list(range(40))
    assert only_segment(folder)


def test_each_line_of_an_object_that_grows_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with s3() as endpoint:
        folder = parse_address(f"s3+{endpoint}/{BUCKET}/log")
        writer, reader, looks = SegmentWriter(folder), SegmentReader(folder), []
        for n in range(3):
            writer.append({"n": n})
            looks.append([json.loads(line)["n"] for _, line in reader.new_lines()])
    assert looks == [[0], [1], [2]]


def test_reading_while_another_writes_sees_whole_lines_only(folder: Address) -> None:
    writer = SegmentWriter(folder)
    for n in range(5):
        writer.append({"n": n})
        assert numbers(folder) == list(range(n + 1))
    writer.close()
