"""Which blocks processes died with: what kills whoever takes it up must not be taken up for ever.

A process that is killed says nothing more, but its heartbeat stays, and names what was under way:

    named by a process that died             suspected: it is taken up last, with nothing else beside it
    two processes died while alone with it   blamed: it is set aside

So it takes three deaths. A scheduler that kills a job with many blocks under way brings suspicion on all of
them, and then each is done. One death alone is not enough: towards the end of a run that was killed twenty
times nearly all that was left was suspected, and the next kill met somebody who was alone with a block.

Once somebody died, what is taken up is named before it is: heartbeats that come every few seconds miss blocks
of a second. `retry` forgets all of it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

from vemdiffuse_pipe.errors import DataError, OutputError, TransientError, VemdiffuseError
from vemdiffuse_pipe.records.journal import Heartbeat, Journal, forget, read_heartbeats
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.running.progress import Progress
from vemdiffuse_pipe.storage.address import Address

MAX_CRASHES_ALONE = 2


class CrashedError(VemdiffuseError):
    """Processes died with a block."""

    n_attempts = 1 + MAX_CRASHES_ALONE

    def __init__(self) -> None:
        super().__init__(
            "a process died with this block under way, and two more that had nothing else: of too little "
            "memory, of a crash in a library, or killed at the end of its time; give it more, or make "
            "block_shape smaller"
        )


class CrashTracker:
    """What a process knows of the deaths of others, and what it tells in case that it dies itself."""

    def __init__(
        self, output: Address, progress: Progress, journal: Journal, clock: Callable[[], float] = time.time
    ) -> None:
        self._output = output
        self._progress = progress
        self._journal = journal
        self._clock = clock
        self._dead: list[Heartbeat] = []
        self.has_begun = False  # with a block
        self.others_live = False
        self.elsewhere: frozenset[int] = frozenset()  # blocks that somebody else who lives is at
        self.suspects: frozenset[int] = frozenset()

    def read_again(self) -> list[Work]:
        """Take in who died by now; what is missing and to be blamed for it.

        Where nothing can be read, it is seen later. Blocks of another shape are other blocks: no suspects.
        """
        with suppress(DataError, TransientError):
            beats = read_heartbeats(self._output, self._clock())
            others = [beat for beat in beats.living if beat.name != self._journal.heartbeat_name]
            self.others_live = bool(others)
            shape = self._progress.blocks.block_shape
            self.elsewhere = frozenset(i for beat in others if beat.block_shape == shape for i in beat.blocks)
            self._dead = self._worth_keeping(beats.dead)
            self._journal.names_each = bool(self._dead)
        self.suspects = frozenset(index for beat in self._dead for index in self._missing(beat))
        alone = Counter(beat.blocks[0] for beat in self._dead if beat.alone and len(beat.blocks) == 1)
        return [self._whole(index) for index in sorted(self.suspects) if alone[index] >= MAX_CRASHES_ALONE]

    def begin(self, work: Work) -> None:
        """The work is taken up now."""
        self._journal.begun(work.block_index, alone=work.block_index in self.suspects)
        if not self.has_begun:
            self._journal.beat()
        self.has_begun = True

    def naming_the_first(self, pieces: Iterator[Work]) -> Iterator[Work]:
        """The same pieces; before the first is taken up, the heartbeat names it."""
        for work in pieces:
            if not self.has_begun:
                self.begin(work)
                self.end(work)
            yield work

    def end(self, work: Work) -> None:
        """It is no longer under way."""
        self._journal.ended(work.block_index)

    def _worth_keeping(self, dead: list[Heartbeat]) -> list[Heartbeat]:
        """Those who name something that is missing, and the last one, who tells that somebody died.

        The others are taken away: in a long run many are killed.
        """
        last = max(dead, key=lambda beat: beat.time, default=None)
        told = [beat for beat in dead if beat is not last and not self._missing(beat)]
        with suppress(OutputError, TransientError):
            forget(self._output, told)
        return [beat for beat in dead if beat is last or self._missing(beat)]

    def _missing(self, beat: Heartbeat) -> list[int]:
        blocks = self._progress.blocks
        if beat.block_shape != blocks.block_shape:
            return []
        there = (index for index in beat.blocks if 0 <= index < blocks.n_blocks)
        return [index for index in there if self._progress.is_missing(self._whole(index))]

    def _whole(self, index: int) -> Work:
        return Work(index, self._progress.blocks.box(index))
