"""One process of a run: which block it starts next, and when it stops.

    own share, forwards --> unfinished blocks of other parts, backwards --> stragglers
        --> suspects, alone --> what failed here, if no other process is alive

Any number of processes do this at once. They know of each other only by what each of them writes beside the
voxels: receipts, so that nothing is done twice; heartbeats, so that a block under way elsewhere is left alone
until it is a straggler; and failures. Blocks that two processes did at once are equal.

A block that fails is noted on disk, and the process goes on. It is marked failed once it failed in two
processes, or twice in a process that finds no other alive.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from math import isfinite
from queue import Empty

from vemdiffuse_pipe.cluster import signals
from vemdiffuse_pipe.cluster.walltime import BlockTimes, Deadline
from vemdiffuse_pipe.errors import DataError, TransientError
from vemdiffuse_pipe.records.parts import Part
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.running.crashes import CrashedError, CrashTracker
from vemdiffuse_pipe.running.durations import BlockDurations
from vemdiffuse_pipe.running.failure_policy import FailurePolicy
from vemdiffuse_pipe.running.local.pipeline import CancelledError, Finished, Pipeline
from vemdiffuse_pipe.running.progress import Progress
from vemdiffuse_pipe.running.rules import STRAGGLER_FACTOR
from vemdiffuse_pipe.storage.retry import reason_of

STRAGGLER_UNKNOWN_S = 5.0  # after which a block is a straggler where no duration is known
N_RECHECKS = 10  # of what others have done, before that
N_LEFTOVERS = 256  # read at once and done in any order: helpers seldom start the same one
MAX_SHARE_RECHECKING, MAX_SHARE_RECHECKING_HELPING = 0.05, 0.5  # of the time
RECHECK_S = 2.0  # between two rechecks, while others may do what is under way here
STOP_GRACE_S = 5.0  # for blocks in flight, where the machine is faulty
ADVICE = "give it more, or make block_shape in [run] smaller"


class LocalWorker:
    """The work of one process, in the thread that calls `run`."""

    def __init__(
        self,
        progress: Progress,
        pipeline: Pipeline,
        policy: FailurePolicy,
        deadline: Deadline,
        crashes: CrashTracker,
        max_blocks: int | None = None,
        recheck_s: float | None = None,
    ) -> None:
        """`max_blocks`: no more are started. `recheck_s`: see RECHECK_S."""
        self._progress = progress
        self._pipeline = pipeline
        self._policy = policy
        self._deadline = deadline
        self._crashes = crashes
        self._recheck_s = RECHECK_S if recheck_s is None else recheck_s
        self._times = BlockTimes()
        self._durations = BlockDurations()
        self._n_left = float("inf") if max_blocks is None else max_blocks
        self._n_done = 0
        self._failed: dict[Work, BaseException] = {}
        self._is_last_try = False
        self._is_helping = False  # another process may be at the same block
        self._elsewhere_since: dict[
            int, float
        ] = {}  # blocks under way elsewhere, and since when that is known
        self._next_recheck = time.monotonic()
        self.is_out_of_time = False

    def run(self, part: Part, *, columns: bool) -> str:
        """Do the part, then help. Why it stopped early, or ''."""
        for work in self._passes(part, columns):
            if stopped := self._do(work):
                return stopped
        while self._n_left > 0 and self._leftovers(columns):
            if stopped := self._await_others(columns) or self._do(self._free(self._leftovers(columns))):
                return stopped
        return self._retry_failed()

    def collect_last(self) -> None:
        """Count what finished while the pipeline was closed, and what others did meanwhile."""
        with suppress(Empty):
            while True:
                self._collect(self._pipeline.next_message(0))
        self._recheck()

    def _retry_failed(self) -> str:
        """Retry what failed here, for the last time; but leave it to other processes, where some live."""
        self._policy.confirm()
        self._recheck()
        failed = {work: error for work, error in self._failed.items() if self._progress.is_missing(work)}
        if not failed:
            return ""
        if self._crashes.others_live:
            *_, error = failed.values()
            return f"{len(failed)} block(s) failed here, and are left to others ({reason_of(error)})"
        self._is_last_try = True
        return self._do(iter(failed))

    def _passes(self, part: Part, columns: bool) -> Iterator[Iterator[Work]]:
        """Own share, then the share to help with; each is read when the one before is done."""
        self._update_crashes()
        yield self._unsuspected(self._progress.missing(columns=columns, share=part.own))
        self._is_helping = True
        self._recheck()
        helped = self._progress.missing(columns=columns, share=part.helped, backwards=True)
        yield self._free(self._unsuspected(work for work in helped if work not in self._failed))

    def _await_others(self, columns: bool) -> str:
        """Wait for those that are at the leftovers, until these are stragglers. Why to stop, or ''."""
        wait_s = self._straggler_after_s()
        ends = time.monotonic() + min(wait_s, self._deadline.left_s())
        while time.monotonic() < ends and self._are_under_way(self._leftovers(columns)):
            with suppress(Empty):
                message = self._pipeline.next_message(wait_s / N_RECHECKS)
                if isinstance(message, signal.Signals):
                    return f"{message.name} was received"
        return ""

    def _straggler_after_s(self) -> float:
        """Seconds after which a block that is under way elsewhere is a straggler."""
        after_s = self._durations.straggler_after_s()
        return after_s if isfinite(after_s) else max(STRAGGLER_UNKNOWN_S, STRAGGLER_FACTOR * self._times.p95)

    def _free(self, pieces: Iterable[Work]) -> Iterator[Work]:
        """Those that are not under way elsewhere, or are stragglers there."""
        for work in pieces:
            since = self._elsewhere_since.get(work.block_index)
            if since is None or time.monotonic() - since >= self._straggler_after_s():
                yield work

    def _are_under_way(self, pieces: list[Work]) -> bool:
        """True where another process may be at some of these; at a suspect only if its heartbeat says so."""
        elsewhere, suspects = self._crashes.elsewhere, self._crashes.suspects
        return self._crashes.others_live and any(
            work.block_index not in suspects or work.block_index in elsewhere for work in pieces
        )

    def _leftovers(self, columns: bool) -> list[Work]:
        """Some of what is missing, in any order, last what is under way elsewhere; where only suspects are
        left, one of them.
        """
        self._recheck()
        leftovers = list(islice(self._unsuspected(self._not_failed(columns)), N_LEFTOVERS))
        if not leftovers:
            suspects = list(islice(self._not_failed(columns), N_LEFTOVERS))
            leftovers = self._one_suspect(suspects)
        random.shuffle(leftovers)
        return sorted(leftovers, key=lambda work: work.block_index in self._elsewhere_since)

    def _one_suspect(self, suspects: list[Work]) -> list[Work]:
        """The suspect to do next; none where there is none.

        In a process that is alone, the first: then a start does the suspect that the one before was killed
        with before it can be killed with another, and no block is met twice by chance. Beside others any, so
        that they are not all at the same one.
        """
        if not self._crashes.others_live:
            return suspects[:1]
        free = [work for work in suspects if work.block_index not in self._crashes.elsewhere]
        return random.sample(free or suspects, min(1, len(suspects)))

    def _not_failed(self, columns: bool) -> Iterator[Work]:
        missing = self._progress.missing(columns=columns, backwards=True)
        return (work for work in missing if work not in self._failed)

    def _unsuspected(self, pieces: Iterator[Work]) -> Iterator[Work]:
        return (work for work in pieces if work.block_index not in self._crashes.suspects)

    def _update_crashes(self) -> None:
        """Read who crashed, and mark failed what they crashed of."""
        for work in self._crashes.update():
            self._policy.mark_failed(work, CrashedError())
        now = time.monotonic()
        self._elsewhere_since = {
            index: self._elsewhere_since.get(index, now) for index in self._crashes.elsewhere
        }

    def _do(self, pieces: Iterator[Work]) -> str:
        """Do these pieces. Why it stopped early, or ''."""
        while True:
            while self._pipeline.has_room and (work := self._next_of(pieces)) is not None:
                self._crashes.start(work)
                self._pipeline.launch(work)
            if not self._pipeline.n_in_flight:
                return self._out_of_time() if self.is_out_of_time else ""
            message = self._next_message()
            if isinstance(message, signal.Signals):
                self._drain(signals.GRACE_S[message])
                return self._stopped_by(message)
            self._collect(message)
            if reason := self._policy.stop_reason():
                self._drain(STOP_GRACE_S)
                return reason

    def _next_of(self, pieces: Iterator[Work]) -> Work | None:
        """The next piece that is still missing, while there is time for it."""
        if self.is_out_of_time or (self._n_left <= 0 and not self._is_last_try):
            return None
        if time.monotonic() >= self._next_recheck:
            self._recheck()
        work = next((piece for piece in pieces if self._progress.is_missing(piece)), None)
        if work is None:
            return None
        self.is_out_of_time = not self._deadline.leaves_time_for(self._times)
        if self.is_out_of_time:
            return None
        self._n_left -= 1
        return work

    def _next_message(self) -> Finished | signal.Signals | None:
        """What happens next. While helping, what others do is reread, so that it is not done here as well."""
        while self._is_helping:
            with suppress(Empty):
                return self._pipeline.next_message(
                    max(self._recheck_s, self._next_recheck - time.monotonic())
                )
            self._recheck()
        return self._pipeline.next_message()

    def _out_of_time(self) -> str:
        if self._n_done or self._is_helping:
            return "the time of this job is nearly over"
        return f"the time of this job is nearly over, and no block could be finished in it: {ADVICE}"

    def _stopped_by(self, received: signal.Signals) -> str:
        if self._n_done or not self._crashes.has_started_a_block:
            return f"{received.name} was received"
        return f"{received.name} was received before a block was finished; if that is its walltime: {ADVICE}"

    def _recheck(self) -> None:
        """Read what others have done and, while helping them, what they have under way. Where that fails, a
        later recheck reads it, or a block is done twice.
        """
        started = time.monotonic()
        with suppress(DataError, TransientError):
            self._progress.update()
        if self._is_helping:
            self._update_crashes()
        now = time.monotonic()
        share = MAX_SHARE_RECHECKING_HELPING if self._is_helping else MAX_SHARE_RECHECKING
        self._next_recheck = now + (now - started) * (1 / share - 1)

    def _collect(self, message: Finished | signal.Signals | None) -> None:
        if not isinstance(message, Finished):
            return
        work, error, seconds = message
        self._crashes.stop(work)
        if error is None:
            self._times.add(seconds)
            self._durations.add(seconds)
            self._n_done += 1
            self._policy.done(work)
        elif isinstance(error, CancelledError):
            return
        elif self._is_last_try:
            n_attempts = sum(getattr(failure, "n_attempts", 1) for failure in (self._failed[work], error))
            self._policy.mark_failed(work, error, n_attempts)
        else:
            self._failed[work] = error
            self._policy.failed(work, error)

    def _drain(self, grace_s: float) -> None:
        """Let blocks that are being computed or stored finish, while there is time; cancel the others."""
        self._pipeline.drain()
        ends = time.monotonic() + min(grace_s, self._deadline.left_s())
        with suppress(Empty):
            while self._pipeline.n_in_flight and (left_s := ends - time.monotonic()) > 0:
                self._collect(self._pipeline.next_message(left_s))
