"""Logs that many processes write at once, and that no crash can tear.

    <folder>/<host>-<pid>-<random>.jsonl      one segment: written by one process, read by all
        {"check":"6b2f0c9d1a7e5f38","digest":...}
        {"check":"d41f9a0b77c2e865","digest":...}
        {"check":"09c1                             torn by a crash: its checksum fails, it does not count

Each line carries the checksum of what follows it. A process only ever appends to a segment that it began,
so a torn line is always the last of its segment and never glued to another. On a store that cannot append,
a writer holds its lines and puts its own segment again, whole: readers see no difference.

Lines that wait while others are being made durable are made durable together: a disk that takes 2 ms to do so
keeps up with thousands of lines a second.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from threading import Lock

import xxhash

from vemdiffuse_pipe.config import Json
from vemdiffuse_pipe.errors import VemdiffuseError
from vemdiffuse_pipe.storage import faults, objects
from vemdiffuse_pipe.storage.address import Address

LINES_OF_AN_OBJECT = 1024  # a million receipts are a thousand objects; the last line puts 0.7 MB again

_SUFFIX = ".jsonl"
_OPENING = b'{"check":"'
_BODY = len(_OPENING) + 16 + len(b'",')


class _Lines:
    """Lines on their way, of one caller. `error`: why they are not durable."""

    def __init__(self, texts: list[bytes]) -> None:
        self.texts = texts
        self.are_settled = False
        self.error: VemdiffuseError | None = None


class SegmentWriter:
    """Appends records to a segment of its own, each durable before `append` returns. For many threads."""

    def __init__(self, folder: Address) -> None:
        self._folder = folder
        self._waiting: deque[_Lines] = deque()
        self._turn = Lock()
        self._segment: _File | _Object | None = None

    def append(self, record: Mapping[str, Json]) -> None:
        """Write one line. Raises StorageFullError, OutputError or TransientError; then it does not count."""
        self.extend([record])

    def extend(self, records: Iterable[Mapping[str, Json]]) -> None:
        """Write several lines in one go; raises as `append`, after which each of them counts or does not.

        Whoever has the turn writes all lines that wait; the others find theirs written when they get it.
        """
        lines = _Lines([encode(record) for record in records])
        self._waiting.append(lines)
        with self._turn:
            if not lines.are_settled:
                self._settle_waiting()
        if lines.error is not None:
            raise lines.error

    def close(self) -> None:
        """End the segment; a later record begins another."""
        with self._turn:
            self._end()

    def _settle_waiting(self) -> None:
        waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
        texts = [text for lines in waiting for text in lines.texts]
        try:
            with faults.writing(str(self._folder)):
                self._write(b"".join(texts), len(texts))
        except VemdiffuseError as error:
            for lines in waiting:
                lines.error = error
        for lines in waiting:
            lines.are_settled = True

    def _write(self, text: bytes, n_lines: int) -> None:
        if self._segment is None or self._segment.is_full:
            self._end()
            self._segment = _begin(self._folder, text, n_lines)
            return
        try:
            self._segment.append(text, n_lines)
        except OSError:
            self._end()  # its last line may be torn: the next record begins another segment
            raise

    def _end(self) -> None:
        if self._segment is not None:
            self._segment.close()
        self._segment = None


class _File:
    """A segment on a disk: an open file, which only grows."""

    is_full = False

    def __init__(self, address: Address) -> None:
        self._descriptor = os.open(address.path, os.O_WRONLY | os.O_APPEND)

    def append(self, text: bytes, n_lines: int) -> None:
        _write(self._descriptor, text)

    def close(self) -> None:
        os.close(self._descriptor)


class _Object:
    """A segment on a store that cannot append: put again, whole, for each line or all that wait."""

    def __init__(self, address: Address, text: bytes, n_lines: int) -> None:
        self._address = address
        self._text, self._n_lines = text, n_lines

    @property
    def is_full(self) -> bool:
        return self._n_lines >= LINES_OF_AN_OBJECT

    def append(self, text: bytes, n_lines: int) -> None:
        objects.write_bytes_atomically(self._address, self._text + text)
        self._text += text
        self._n_lines += n_lines

    def close(self) -> None:
        pass


class SegmentReader:
    """Reads the segments of a folder, and later what is new in them: lines of a file that were not there,
    objects that changed. Objects are read several at once. May read while others append.
    """

    def __init__(self, folder: Address) -> None:
        self._folder = folder
        self._read_to: dict[str, int] = {}  # of a file: bytes
        self._generations: dict[str, bytes] = {}  # of an object: which one was read
        self._n_read: dict[str, int] = {}  # of an object: lines
        self._ended: set[str] = set()  # objects that will not change any more

    def new_lines(self) -> Iterator[tuple[str, bytes]]:
        """(segment, line) of every whole line that was not read yet, in the order of writing in a segment.

        Raises DataError where a segment cannot be read.
        """
        names = (name for name in objects.list_names(self._folder) if name.endswith(_SUFFIX))
        yield from self._of_files(sorted(names)) if self._folder.is_local else self._of_objects(names)

    def _of_files(self, names: list[str]) -> Iterator[tuple[str, bytes]]:
        for name in names:
            path, read_to = (self._folder / name).path, self._read_to.get(name, 0)
            with faults.reading(str(self._folder / name)):
                if path.stat().st_size <= read_to:
                    continue
                with path.open("rb") as file:
                    file.seek(read_to)
                    for line in file:
                        if not line.endswith(b"\n"):
                            break  # it is being written, or torn for good
                        read_to += len(line)
                        if is_whole(line):
                            yield name, line
                        self._read_to[name] = read_to

    def _of_objects(self, names: Iterator[str]) -> Iterator[tuple[str, bytes]]:
        living = sorted(name for name in names if name not in self._ended)
        for name, data in objects.read_changed(self._folder, living, self._generations):
            lines = data.splitlines(keepends=True)
            if len(lines) >= LINES_OF_AN_OBJECT:
                self._ended.add(name)
            n_read = self._n_read.get(name, 0)
            self._n_read[name] = max(n_read, len(lines))
            yield from ((name, line) for line in lines[n_read:] if is_whole(line))


def read_lines(folder: Address) -> Iterator[tuple[str, bytes]]:
    """(segment, line) of every whole line of every segment, in the order of writing within a segment.

    Memory for a few segments; may run while others append. Raises DataError where one cannot be read.
    """
    return SegmentReader(folder).new_lines()


def encode(record: Mapping[str, Json]) -> bytes:
    """The line of a record."""
    body = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()[1:] + b"\n"
    return b'%s%s",%s' % (_OPENING, xxhash.xxh3_64_hexdigest(body).encode(), body)


def is_whole(line: bytes) -> bool:
    """True for a line as `encode` made it."""
    return line[len(_OPENING) : _BODY - 2] == xxhash.xxh3_64_hexdigest(line[_BODY:]).encode()


def _begin(folder: Address, text: bytes, n_lines: int) -> _File | _Object:
    """A new segment that holds `text`."""
    address = folder / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
    objects.write_bytes_atomically(address, text)
    return _File(address) if address.is_local else _Object(address, text, n_lines)


def _write(descriptor: int, text: bytes) -> None:
    while text:
        text = text[os.write(descriptor, text) :]
    os.fsync(descriptor)
