"""Which blocks crash processes: a block that crashes every process that tries it must not be tried for ever.

A killed process cannot report anything, but its heartbeat stays, and names the blocks that were under way:

    named by a crashed process            suspected: it is done last, with nothing else under way
    two processes crashed alone with it   marked failed

So it takes three crashes. A scheduler that kills a job with many blocks under way makes all of them suspects,
and then each is done. One crash alone is not enough: towards the end of a run that was killed twenty times
nearly all blocks that were left were suspects, and the next kill met a process that was alone with one.

After the first crash a block is named in the heartbeat before it starts: heartbeats that come every few
seconds miss blocks of a second. `retry` forgets all crashes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from vemdiffuse_pipe.errors import DataError, OutputError, TransientError, VemdiffuseError
from vemdiffuse_pipe.records.heartbeats import Heartbeat, read_heartbeats, remove_heartbeats
from vemdiffuse_pipe.records.journal import Journal
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.running.progress import Progress
from vemdiffuse_pipe.running.rules import MAX_CRASHES_ALONE, is_crash_culprit
from vemdiffuse_pipe.storage.address import Address


class CrashedError(VemdiffuseError):
    """Processes crashed with a block."""

    n_attempts = 1 + MAX_CRASHES_ALONE

    def __init__(self) -> None:
        super().__init__(
            "a process crashed with this block under way, and two more that had no other: out of memory, a "
            "crash in a library, or killed at the end of its time; give it more memory or time, or make "
            "block_shape smaller"
        )


class CrashTracker:
    """What is known of crashed processes, and of blocks that other processes have under way."""

    def __init__(
        self, records: Address, progress: Progress, journal: Journal, clock: Callable[[], float] = time.time
    ) -> None:
        self._records = records
        self._progress = progress
        self._journal = journal
        self._clock = clock
        self._crashed: list[Heartbeat] = []
        self.has_started_a_block = False
        self.others_live = False
        self.elsewhere: frozenset[int] = frozenset()  # blocks that other living processes have under way
        self.suspects: frozenset[int] = frozenset()

    def update(self) -> list[Work]:
        """Read who crashed by now; the missing work that is to be marked failed for it.

        Where nothing can be read, a later call does. Blocks of another shape are other blocks: no suspects.
        """
        with suppress(DataError, TransientError):
            beats = read_heartbeats(self._records, self._clock())
            others = [beat for beat in beats.living if beat.name != self._journal.heartbeat_name]
            self.others_live = bool(others)
            shape = self._progress.blocks.block_shape
            self.elsewhere = frozenset(i for beat in others if beat.block_shape == shape for i in beat.blocks)
            self._crashed = self._worth_keeping(beats.crashed)
            self._journal.beats_before_each_block = bool(self._crashed)
        self.suspects = frozenset(index for beat in self._crashed for index in self._missing(beat))
        alone = Counter(beat.blocks[0] for beat in self._crashed if beat.alone and len(beat.blocks) == 1)
        return [self._whole(index) for index in sorted(self.suspects) if is_crash_culprit(alone[index])]

    def start(self, work: Work) -> None:
        """The work is under way now."""
        self._journal.start(work.block_index, alone=work.block_index in self.suspects)
        if not self.has_started_a_block:
            self._journal.beat()
        self.has_started_a_block = True

    def stop(self, work: Work) -> None:
        """The work is no longer under way."""
        self._journal.stop(work.block_index)

    def _worth_keeping(self, crashed: list[Heartbeat]) -> list[Heartbeat]:
        """Those that name missing work, and the last one, which shows that there was a crash.

        The others are removed: in a long run many processes are killed.
        """
        last = max(crashed, key=lambda beat: beat.time, default=None)
        useless = [beat for beat in crashed if beat is not last and not self._missing(beat)]
        with suppress(OutputError, TransientError):
            remove_heartbeats(self._records, useless)
        return [beat for beat in crashed if beat is last or self._missing(beat)]

    def _missing(self, beat: Heartbeat) -> list[int]:
        blocks = self._progress.blocks
        if beat.block_shape != blocks.block_shape:
            return []
        indices = (index for index in beat.blocks if 0 <= index < blocks.n_blocks)
        return [index for index in indices if self._progress.is_missing(self._whole(index))]

    def _whole(self, index: int) -> Work:
        return Work(index, self._progress.blocks.box(index))
