"""Progress is proven by receipts, kept by shard: the shape of blocks may change between two starts.

    block written  ->  its shards are durable  ->  its receipt is appended  ->  it is done

A receipt is one line (see segments.py). Its head, up to the first `]`, is all that opening a run reads:

    {"check":..,"digest":"5d41..","shards":[12,13],   "checksums":{"em":["..",".."]},"box":..,"seconds":..}

What is done is a bitmap over linear shard indices: 10^8 shards take 12.5 MB, however many receipts there are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict, cast

import numpy as np
import xxhash
from numpy.typing import NDArray

from vemdiffuse_pipe.config import Json
from vemdiffuse_pipe.errors import OutputError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.records import segments
from vemdiffuse_pipe.records.shards import ShardSet
from vemdiffuse_pipe.storage.address import Address

FOLDER = "receipts"  # of the records

_PLAIN = ("digest", "seconds", "n_attempts", "bytes_read", "peak_bytes", "host", "device", "pid", "time")
_SINCE_LATER = {"bytes_fetched": 0, "n_requests_failed": 0, "job": "", "peak_gpu_bytes": 0}  # and before


@dataclass(frozen=True, slots=True)
class Receipt:
    """The record that `output_box` is stored."""

    digest: str
    """Identity of the run, 16 hexadecimal digits."""
    shards: tuple[int, ...]
    """Linear indices of the shards of `output_box`."""
    checksums: Mapping[str, tuple[str, ...]]
    """By array, one a shard, in the order of `shards`."""
    output_box: Box
    """What is stored, voxels of the output, zyx."""
    seconds: Mapping[str, float]
    """By stage."""
    n_attempts: int
    """1, and one for each attempt at a stage that failed."""
    bytes_read: int
    """Decoded bytes of the source that the block needed."""
    peak_bytes: int
    """Most resident memory of the process so far."""
    host: str
    """Name of the machine."""
    device: str
    """'cpu', or which GPU and its name."""
    pid: int
    """Process number."""
    time: float
    """When the block was done, seconds since 1970."""
    n_requests_failed: int = 0
    """Requests that were retried, by the whole process since its receipt before, so that sums are right."""
    bytes_fetched: int = 0
    """Encoded bytes that came from the store, counted the same way."""
    filled_sections: tuple[int, ...] = ()
    """Sections of which some voxels do not exist."""
    n_voxels_filled: int = 0
    """How many voxels these are."""
    job: str = ""
    """Job of a batch system, '' outside."""
    peak_gpu_bytes: int = 0
    """Most GPU memory of the process so far."""
    notes: Mapping[str, Json] = field(default_factory=dict)
    """What computing the block has to say, by name: of rendering see `render.hardware.RenderCounts`."""

    def as_record(self) -> dict[str, Json]:
        """The receipt as JSON; digest and shards come first."""
        filled: dict[str, Json] = {"filled": [list(self.filled_sections), self.n_voxels_filled]}
        return {
            "digest": self.digest,
            "shards": list(self.shards),
            "checksums": {array: list(sums) for array, sums in self.checksums.items()},
            "box": [list(self.output_box.start), list(self.output_box.stop)],
            "seconds": {stage: round(seconds, 6) for stage, seconds in self.seconds.items()},
            "n_attempts": self.n_attempts,
            "bytes_read": self.bytes_read,
            "bytes_fetched": self.bytes_fetched,
            "n_requests_failed": self.n_requests_failed,
            "peak_bytes": self.peak_bytes,
            "host": self.host,
            "device": self.device,
            "pid": self.pid,
            "time": round(self.time, 3),
            **({"job": self.job} if self.job else {}),
            **({"peak_gpu_bytes": self.peak_gpu_bytes} if self.peak_gpu_bytes else {}),
            **(filled if self.n_voxels_filled else {}),
            **({"notes": dict(self.notes)} if self.notes else {}),
        }


class Cost(TypedDict):
    """A receipt without its checksums, as JSON: see `Receipt`."""

    shards: list[int]
    box: list[list[int]]
    seconds: dict[str, float]
    n_attempts: int
    bytes_read: int
    bytes_fetched: NotRequired[int]
    n_requests_failed: NotRequired[int]
    peak_bytes: int
    peak_gpu_bytes: NotRequired[int]
    host: str
    device: str
    time: float
    filled: NotRequired[list[Any]]


def checksum(voxels: NDArray[np.generic]) -> str:
    """xxh3_128 of a shard's decoded voxels.

    Of the voxels, not of the stored bytes: compression differs between versions of a codec, and `verify`
    must catch a shard that decodes to something else. xxh3 because it runs at the speed of memory (a
    cryptographic sum would cost as much as compressing), 128 bits because there may be 10^8 shards.
    """
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(voxels).data)


def read_receipts(records: Address, digest: str) -> Iterator[tuple[str, Receipt]]:
    """(segment, receipt) of every receipt, streaming. Raises OutputError for one of another run."""
    for segment, line in segments.read_lines(records / FOLDER):
        record = json.loads(line)
        _check_digest(record["digest"], digest, records, segment)
        yield segment, _receipt(record)


class DoneReader:
    """Reads which shards have a receipt, and later which have one by now."""

    def __init__(self, records: Address, digest: str) -> None:
        self._records = records
        self._digest = digest
        self._segments = segments.SegmentReader(records / FOLDER)

    def add_new(self, done: ShardSet) -> None:
        """Add the shards of receipts that were not read yet. Raises OutputError for a receipt of another run,
        or another grid; DataError or TransientError.
        """
        for segment, line in self._segments.new_lines():
            head = json.loads(line[: line.index(b"]") + 1] + b"}")
            _check_digest(head["digest"], self._digest, self._records, segment)
            for shard in head["shards"]:
                done.add(shard)


class CostReader:
    """Reads what blocks have cost, a third faster than all of their receipts, and later what is new."""

    def __init__(self, records: Address, digest: str) -> None:
        self._records = records
        self._digest = digest
        self._segments = segments.SegmentReader(records / FOLDER)

    def new_costs(self) -> Iterator[tuple[str, Cost]]:
        """(segment, cost) of every receipt that was not read yet; raises as `read_receipts`."""
        for segment, line in self._segments.new_lines():
            sums = line.index(b'"checksums"')
            record = json.loads(line[:sums] + line[line.index(b'"box"', sums) :])
            _check_digest(record["digest"], self._digest, self._records, segment)
            yield segment, cast(Cost, record)


def read_done(records: Address, digest: str, shards: BlockGrid) -> ShardSet:
    """The shards that have a receipt. Raises OutputError for a receipt of another run, or another grid."""
    done = ShardSet(shards)
    DoneReader(records, digest).add_new(done)
    return done


def _check_digest(stored: str, needed: str, records: Address, segment: str) -> None:
    if stored != needed:
        raise OutputError(
            f"{records / FOLDER / segment} holds a receipt of run {stored}; the output is of run {needed}; "
            "nothing of another run is counted: remove that file, or choose another output"
        )


def _receipt(record: dict[str, Any]) -> Receipt:
    box = box_of(record["box"])
    checksums = {array: tuple(sums) for array, sums in record["checksums"].items()}
    known = {name: record[name] for name in _PLAIN}
    later = {name: record.get(name, before) for name, before in _SINCE_LATER.items()}
    filled_sections, n_voxels_filled = record.get("filled", ((), 0))
    return Receipt(
        shards=tuple(record["shards"]),
        checksums=checksums,
        output_box=box,
        filled_sections=tuple(filled_sections),
        n_voxels_filled=n_voxels_filled,
        notes=record.get("notes", {}),
        **known,
        **later,
    )


def box_of(corners: Sequence[Sequence[int]]) -> Box:
    """The box of [start, stop], as JSON holds it."""
    (z0, y0, x0), (z1, y1, x1) = corners
    return Box((z0, y0, x0), (z1, y1, x1))
