"""Work that is marked failed, and why: kept beside the receipts until `retry`.

    {"check":..,"mark":"9f3c..","box":..,"shards":[..],"reason":"MissingDataError: ..","n_attempts":1}
    {"check":..,"mark":"51d0..",..,"process":"c2e8.."}    it failed in this process only
    {"check":..,"released":["9f3c..",..]}

What failed in one process is still missing; what failed in two is marked failed, whichever of them was later
and whether or not it saw the other. Nothing is deleted: a mark is released by a later line, in any segment,
that names it. No clock decides.
"""

from __future__ import annotations

import json
import secrets
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from vemdiffuse_pipe.config import Json
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.records.events import FailedBlock
from vemdiffuse_pipe.records.receipts import box_of
from vemdiffuse_pipe.records.segments import SegmentReader, SegmentWriter
from vemdiffuse_pipe.records.shards import ShardSet
from vemdiffuse_pipe.storage.address import Address

FOLDER = "set_aside"  # of the records; its name since the first version


@dataclass(frozen=True, slots=True)
class Mark:
    """Work that a run marked failed, or that failed in one process."""

    name: str
    """16 hexadecimal digits, drawn."""
    shards: tuple[int, ...]
    """Linear indices of the shards that it was to write."""
    block: FailedBlock
    """The block, and why it failed."""
    process: str = ""
    """The process, where it failed in this one only; '' where it is marked failed."""


def new_mark(block: FailedBlock, shards: BlockGrid, process: str = "") -> Mark:
    """A mark for a failed block, or for one that failed in `process` only."""
    return Mark(secrets.token_hex(8), tuple(shards.touching(block.output_box)), block, process)


def write_mark(writer: SegmentWriter, mark: Mark) -> None:
    """Append a mark."""
    block = mark.block
    corners: Json = [list(block.output_box.start), list(block.output_box.stop)]
    writer.append(
        {
            "mark": mark.name,
            "box": corners,
            "shards": list(mark.shards),
            "reason": block.reason,
            "n_attempts": block.n_attempts,
            **({"process": mark.process} if mark.process else {}),
        }
    )


def release(records: Address, marks: Iterable[Mark]) -> None:
    """Release marks: their blocks are missing work again."""
    names: list[Json] = [mark.name for mark in marks]
    if names:
        writer = SegmentWriter(records / FOLDER)
        writer.append({"released": names})
        writer.close()


class MarkReader:
    """Reads failure marks, and later those that were written or released since."""

    def __init__(self, records: Address, blocks: BlockGrid) -> None:
        self._segments = SegmentReader(records / FOLDER)
        self._blocks = blocks
        self._marks: dict[str, Mark] = {}
        self._released: set[str] = set()

    def holding(self, done: ShardSet) -> list[Mark]:
        """The marks that hold, ascending, one a box: not released, and some of their shards are not done.

        Work that failed in one process only is not among them.
        """
        for _, line in self._segments.new_lines():
            record = json.loads(line)
            if "released" in record:
                self._released.update(record["released"])
            else:
                self._marks[record["mark"]] = _mark(record, self._blocks)
        marks = [mark for mark in self.unreleased() if any(s not in done for s in mark.shards)]
        by_box = _failed_twice(marks)
        by_box |= {mark.block.output_box: mark for mark in marks if not mark.process}
        return sorted(by_box.values(), key=lambda m: m.block.block_index)

    def unreleased(self) -> list[Mark]:
        """All marks that were read and not released, also of work that failed in one process only."""
        return [mark for name, mark in self._marks.items() if name not in self._released]


def read_marks(records: Address, blocks: BlockGrid, done: ShardSet) -> list[Mark]:
    """The marks that hold, ascending, one a box: not released, and some of their shards are not done."""
    return MarkReader(records, blocks).holding(done)


def _failed_twice(marks: Iterable[Mark]) -> dict[Box, Mark]:
    """By box, the work that failed in two processes: the later mark, with the attempts of all."""
    by_process: defaultdict[Box, dict[str, Mark]] = defaultdict(dict)
    for mark in marks:
        if mark.process:
            by_process[mark.block.output_box][mark.process] = mark
    return {box: _merged(list(group.values())) for box, group in by_process.items() if len(group) > 1}


def _merged(marks: list[Mark]) -> Mark:
    n_attempts = sum(mark.block.n_attempts for mark in marks)
    return replace(marks[-1], block=replace(marks[-1].block, n_attempts=n_attempts))


def _mark(record: dict[str, Any], blocks: BlockGrid) -> Mark:
    box = box_of(record["box"])
    block = FailedBlock(blocks.index_of(box.start), box, record["reason"], record["n_attempts"])
    return Mark(record["mark"], tuple(record["shards"]), block, record.get("process", ""))
