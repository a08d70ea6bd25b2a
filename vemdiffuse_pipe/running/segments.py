"""Logs that many processes write at once, and that no crash can tear.

    <folder>/<host>-<pid>-<random>.jsonl      one segment: written by one process, read by all
        {"check":"6b2f0c9d1a7e5f38","digest":...}
        {"check":"d41f9a0b77c2e865","digest":...}
        {"check":"09c1                             torn by a crash: its checksum fails, it does not count

Each line carries the checksum of what follows it. A process only ever appends to a segment that it began,
so a torn line is always the last of its segment and never glued to another. On a store that cannot append,
a writer holds its lines and puts its own segment again, whole: readers see no difference.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import socket
from collections.abc import Iterable, Iterator, Mapping
from threading import Lock
from typing import BinaryIO

import xxhash

from vemdiffuse_pipe.storage import faults, objects
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.metadata import Json

LINES_OF_AN_OBJECT = 128

_SUFFIX = ".jsonl"
_OPENING = b'{"check":"'
_BODY = len(_OPENING) + 16 + len(b'",')


class SegmentWriter:
    """Appends records to a segment of its own, each durable before `append` returns. For many threads."""

    def __init__(self, folder: Address) -> None:
        self._folder = folder
        self._lock = Lock()
        self._segment: _File | _Object | None = None

    def append(self, record: Mapping[str, Json]) -> None:
        """Write one line. Raises StorageFullError, OutputError or TransientError; then it does not count."""
        self._write(encode(record))

    def extend(self, records: Iterable[Mapping[str, Json]]) -> None:
        """Write several lines in one go; raises as `append`, after which each of them counts or does not."""
        self._write(b"".join(map(encode, records)))

    def _write(self, lines: bytes) -> None:
        with self._lock, faults.writing(str(self._folder)):
            if self._segment is None or self._segment.is_full:
                self._end()
                self._segment = _begin(self._folder, lines)
                return
            try:
                self._segment.append(lines)
            except OSError:
                self._end()  # its last line may be torn: the next record begins another segment
                raise

    def close(self) -> None:
        """End the segment; a later record begins another."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._segment is not None:
            self._segment.close()
        self._segment = None


class _File:
    """A segment on a disk: an open file, which only grows."""

    is_full = False

    def __init__(self, address: Address) -> None:
        self._descriptor = os.open(address.path, os.O_WRONLY | os.O_APPEND)

    def append(self, line: bytes) -> None:
        _write(self._descriptor, line)

    def close(self) -> None:
        os.close(self._descriptor)


class _Object:
    """A segment on a store that cannot append: put again, whole, for each line."""

    def __init__(self, address: Address, line: bytes) -> None:
        self._address = address
        self._lines = [line]

    @property
    def is_full(self) -> bool:
        return len(self._lines) >= LINES_OF_AN_OBJECT

    def append(self, line: bytes) -> None:
        objects.write_bytes_atomically(self._address, b"".join((*self._lines, line)))
        self._lines.append(line)

    def close(self) -> None:
        pass


def read_lines(folder: Address) -> Iterator[tuple[str, bytes]]:
    """(segment, line) of every whole line of every segment, in the order of writing within a segment.

    Constant memory; may run while others append. Raises DataError where a segment cannot be read.
    """
    for name in sorted(objects.list_names(folder)):
        if name.endswith(_SUFFIX):
            with faults.reading(str(folder / name)), _lines_of(folder / name) as lines:
                yield from ((name, line) for line in lines if is_whole(line))


def _lines_of(address: Address) -> BinaryIO:
    return address.path.open("rb") if address.is_local else io.BytesIO(objects.read_bytes(address) or b"")


def encode(record: Mapping[str, Json]) -> bytes:
    """The line of a record."""
    body = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()[1:] + b"\n"
    return b'%s%s",%s' % (_OPENING, xxhash.xxh3_64_hexdigest(body).encode(), body)


def is_whole(line: bytes) -> bool:
    """True for a line as `encode` made it."""
    return line[len(_OPENING) : _BODY - 2] == xxhash.xxh3_64_hexdigest(line[_BODY:]).encode()


def _begin(folder: Address, line: bytes) -> _File | _Object:
    """A new segment that holds `line`."""
    address = folder / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
    objects.write_bytes_atomically(address, line)
    return _File(address) if address.is_local else _Object(address, line)


def _write(descriptor: int, line: bytes) -> None:
    while line:
        line = line[os.write(descriptor, line) :]
    os.fsync(descriptor)
