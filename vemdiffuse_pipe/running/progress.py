"""How far an output is: what its receipts prove, what was set aside, what is missing, what nobody wants."""

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
    """Read when a run starts, kept as it goes on, and read on where others work too.

    Memory: a few bits a shard, and the marks.
    """

    def __init__(self, output: Address, digest: str, blocks: BlockGrid, shards: BlockGrid) -> None:
        self.blocks = blocks
        self.done = ShardSet(shards)
        self.outside = read_outside(output, shards)
        self._receipts = DoneReader(output, digest)
        self._mark_reader = failures.MarkReader(output, blocks)
        self.read_again()
        self._writer = SegmentWriter(output / failures.FOLDER)
        self._process = secrets.token_hex(8)
        self._n_rendered = 0

    def read_again(self) -> None:
        """Take in what is done or set aside by now, by whomever. Raises DataError or TransientError."""
        self._receipts.add_new(self.done)
        self._read_marks()

    def _read_marks(self) -> None:
        self.marks = self._mark_reader.holding(self.done)
        self._given_up = {mark.block.output_box for mark in self.marks}

    def missing(
        self, *, columns: bool = False, share: Share = EVERYTHING, backwards: bool = False
    ) -> Iterator[Work]:
        """What of `share` is neither done nor set aside, in an order of `missing_work`."""
        settled = self._settled()
        return missing_work(self.blocks, settled, columns=columns, share=share, backwards=backwards)

    def is_missing(self, work: Work) -> bool:
        """True for work that is still neither done nor set aside, as far as was read."""
        box = work.output_box
        return box not in self._given_up and any(s not in self.done for s in self.done.grid.touching(box))

    def n_missing(self, *, columns: bool = False, share: Share = EVERYTHING) -> int:
        """Blocks that `missing` has work for."""
        return count_missing(self.blocks, self._settled(), columns=columns, share=share)

    def n_voxels_missing(self) -> int:
        """Voxels of all that `missing` has work for."""
        z, y, x = self.blocks.shape
        return z * y * x - self._settled().n_voxels()

    def enter_done(self, work: Work) -> None:
        """The work's receipt is written."""
        self._n_rendered += 1
        for shard in self.done.grid.touching(work.output_box):
            self.done.add(shard)

    def mark_failed(self, work: Work, reason: str, n_attempts: int) -> FailedBlock:
        """Give the work up, on disk too."""
        failed_blocks = FailedBlock(work.block_index, work.output_box, reason, n_attempts)
        mark = failures.new_mark(failed_blocks, self.done.grid)
        failures.write_mark(self._writer, mark)
        self.marks.append(mark)
        self._given_up.add(work.output_box)
        return failed_blocks

    def enter_failed(self, work: Work, reason: str, n_attempts: int) -> FailedBlock | None:
        """This process failed at the work; on disk, where others see it. What is given up where it was not
        the first to fail at it.
        """
        failed = FailedBlock(work.block_index, work.output_box, reason, n_attempts)
        failures.write_mark(self._writer, failures.new_mark(failed, self.done.grid, self._process))
        with suppress(DataError, TransientError):  # then it is seen later
            self._read_marks()
        failed_blocks = (mark.block for mark in self.marks)
        return next((each for each in failed_blocks if each.output_box == work.output_box), None)

    def all_marks(self) -> list[failures.Mark]:
        """The marks that were read, and those of what one process alone has failed at."""
        return self._mark_reader.unreleased()

    def outcome(self, stopped: str = "", *, drained: bool = False, interrupted: bool = False) -> Outcome:
        """Where the run stands. `stopped`: what ended it early; `drained`: and wants it to go on later;
        `interrupted`: by somebody who does not want to wait. Nothing did where it is complete.
        """
        n_blocks, n_wanted = self.blocks.n_blocks, count_missing(self.blocks, self.outside)
        n_missing = count_missing(self.blocks, self.done | self.outside)
        stopped = stopped if n_missing else ""
        return Outcome(
            n_blocks=n_blocks,
            n_done=n_wanted - n_missing,
            n_rendered=self._n_rendered,
            failed_blocks=tuple(mark.block for mark in self.marks),
            stopped=f"{stopped}; run again to go on from here" if stopped else "",
            drained=drained and stopped != "",
            n_skipped=n_blocks - n_wanted,
            interrupted=interrupted and stopped != "",
        )

    def close(self) -> None:
        """End this process's segment of marks."""
        self._writer.close()

    def _settled(self) -> ShardSet:
        failed_blocks = ShardSet(self.done.grid)
        for mark in self.marks:
            for shard in mark.shards:
                failed_blocks.add(shard)
        return self.done | self.outside | failed_blocks
