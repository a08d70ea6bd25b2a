"""How far an output is: what its receipts prove, what was set aside, what is missing, what nobody wants."""

from __future__ import annotations

from collections.abc import Iterator

from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.running import set_aside
from vemdiffuse_pipe.running.events import Outcome, SetAside
from vemdiffuse_pipe.running.mask import read_outside
from vemdiffuse_pipe.running.receipts import read_done
from vemdiffuse_pipe.running.segments import SegmentWriter
from vemdiffuse_pipe.running.shards import ShardSet, Work, count_missing, missing_work
from vemdiffuse_pipe.storage.address import Address


class Progress:
    """Read once, when a run starts, and kept as it goes on. Memory: a few bits a shard, and the marks."""

    def __init__(self, output: Address, digest: str, blocks: BlockGrid, shards: BlockGrid) -> None:
        self.blocks = blocks
        self.done = read_done(output, digest, shards)
        self.outside = read_outside(output, shards)
        self.marks = set_aside.read_marks(output, blocks, self.done)
        self._writer = SegmentWriter(output / set_aside.FOLDER)
        self._n_rendered = 0

    def missing(self, *, columns: bool = False) -> Iterator[Work]:
        """What is wanted and neither done nor set aside, in an order of `missing_work`."""
        return missing_work(self.blocks, self._settled(), columns=columns)

    def n_missing(self) -> int:
        """Blocks that `missing` has work for."""
        return count_missing(self.blocks, self._settled())

    def n_voxels_missing(self) -> int:
        """Voxels of all that `missing` has work for."""
        z, y, x = self.blocks.shape
        return z * y * x - self._settled().n_voxels()

    def enter_done(self, work: Work) -> None:
        """The work's receipt is written."""
        self._n_rendered += 1
        for shard in self.done.grid.touching(work.output_box):
            self.done.add(shard)

    def enter_set_aside(self, work: Work, reason: str, n_attempts: int) -> SetAside:
        """Give the work up, on disk too."""
        given_up = SetAside(work.block_index, work.output_box, reason, n_attempts)
        mark = set_aside.new_mark(given_up, self.done.grid)
        set_aside.write_mark(self._writer, mark)
        self.marks.append(mark)
        return given_up

    def outcome(self, stopped: str = "") -> Outcome:
        """Where the run stands."""
        n_blocks, n_wanted = self.blocks.n_blocks, count_missing(self.blocks, self.outside)
        return Outcome(
            n_blocks=n_blocks,
            n_done=n_wanted - count_missing(self.blocks, self.done | self.outside),
            n_rendered=self._n_rendered,
            set_aside=tuple(mark.set_aside for mark in self.marks),
            stopped=stopped,
            n_skipped=n_blocks - n_wanted,
        )

    def close(self) -> None:
        """End this process's segment of marks."""
        self._writer.close()

    def _settled(self) -> ShardSet:
        given_up = ShardSet(self.done.grid)
        for mark in self.marks:
            for shard in mark.shards:
                given_up.add(shard)
        return self.done | self.outside | given_up
