"""The state of a job: what its receipts prove, what is marked failed, what is missing, what is not wanted."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import suppress

from vemdiffuse_pipe.errors import DataError, TransientError
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.output.mask import read_outside
from vemdiffuse_pipe.records import failures
from vemdiffuse_pipe.records.events import FailedBlock, Outcome
from vemdiffuse_pipe.records.parts import EVERYTHING, Share
from vemdiffuse_pipe.records.receipts import DoneReader
from vemdiffuse_pipe.records.segments import SegmentWriter
from vemdiffuse_pipe.records.shards import ShardSet, Work, count_missing, missing_work
from vemdiffuse_pipe.storage.address import Address


class Progress:
    """Read when a run starts, kept while it runs, and updated where other processes work too.

    Memory: a few bits a shard, and the failure marks.
    """

    def __init__(self, records: Address, digest: str, blocks: BlockGrid, shards: BlockGrid) -> None:
        self.blocks = blocks
        self.done = ShardSet(shards)
        self.outside = read_outside(records, shards)
        self._receipts = DoneReader(records, digest)
        self._mark_reader = failures.MarkReader(records, blocks)
        self.update()
        self._writer = SegmentWriter(records / failures.FOLDER)
        self._process = secrets.token_hex(8)
        self._n_rendered = 0

    def update(self) -> None:
        """Read what is done or marked failed by now, by any process. Raises DataError or TransientError."""
        self._receipts.add_new(self.done)
        self._read_marks()

    def _read_marks(self) -> None:
        self.marks = self._mark_reader.holding(self.done)
        self._failed_boxes = {mark.block.output_box for mark in self.marks}

    def missing(
        self, *, columns: bool = False, share: Share = EVERYTHING, backwards: bool = False
    ) -> Iterator[Work]:
        """The work of `share` that is neither done nor marked failed, in an order of `missing_work`."""
        return missing_work(self.blocks, self._excluded(), columns=columns, share=share, backwards=backwards)

    def is_missing(self, work: Work) -> bool:
        """True for work that is neither done nor marked failed, as far as was read."""
        box = work.output_box
        return box not in self._failed_boxes and any(s not in self.done for s in self.done.grid.touching(box))

    def n_missing(self, *, columns: bool = False, share: Share = EVERYTHING) -> int:
        """Blocks that `missing` has work for."""
        return count_missing(self.blocks, self._excluded(), columns=columns, share=share)

    def n_voxels_missing(self) -> int:
        """Voxels of all that `missing` has work for."""
        z, y, x = self.blocks.shape
        return z * y * x - self._excluded().n_voxels()

    def enter_done(self, work: Work) -> None:
        """The work's receipt is written."""
        self._n_rendered += 1
        for shard in self.done.grid.touching(work.output_box):
            self.done.add(shard)

    def mark_failed(self, work: Work, reason: str, n_attempts: int) -> FailedBlock:
        """Mark the work failed, on disk too; the failed block."""
        failed_block = FailedBlock(work.block_index, work.output_box, reason, n_attempts)
        mark = failures.new_mark(failed_block, self.done.grid)
        failures.write_mark(self._writer, mark)
        self.marks.append(mark)
        self._failed_boxes.add(work.output_box)
        return failed_block

    def enter_failed(self, work: Work, reason: str, n_attempts: int) -> FailedBlock | None:
        """Write on disk that the work failed in this process; the failed block where it failed elsewhere
        too.
        """
        failed = FailedBlock(work.block_index, work.output_box, reason, n_attempts)
        failures.write_mark(self._writer, failures.new_mark(failed, self.done.grid, self._process))
        with suppress(DataError, TransientError):  # a later update reads it
            self._read_marks()
        failed_blocks = (mark.block for mark in self.marks)
        return next((block for block in failed_blocks if block.output_box == work.output_box), None)

    def all_marks(self) -> list[failures.Mark]:
        """All marks that were read, also those of work that failed in one process only."""
        return self._mark_reader.unreleased()

    def outcome(self, stopped: str = "", *, drained: bool = False, interrupted: bool = False) -> Outcome:
        """The state of the output. `stopped`, `drained`, `interrupted`: how this run ended, if it ended
        early; ignored where nothing is missing.
        """
        n_blocks, n_wanted = self.blocks.n_blocks, count_missing(self.blocks, self.outside)
        n_missing = count_missing(self.blocks, self.done | self.outside)
        stopped = stopped if n_missing else ""
        return Outcome(
            n_blocks=n_blocks,
            n_done=n_wanted - n_missing,
            n_rendered=self._n_rendered,
            failed_blocks=tuple(mark.block for mark in self.marks),
            stopped=f"{stopped}; rerun to resume" if stopped else "",
            drained=drained and stopped != "",
            n_skipped=n_blocks - n_wanted,
            interrupted=interrupted and stopped != "",
        )

    def close(self) -> None:
        """Close this process's segment of failure marks."""
        self._writer.close()

    def _excluded(self) -> ShardSet:
        failed_blocks = ShardSet(self.done.grid)
        for mark in self.marks:
            for shard in mark.shards:
                failed_blocks.add(shard)
        return self.done | self.outside | failed_blocks
