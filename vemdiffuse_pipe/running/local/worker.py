"""One part of a run, in this process alone: no scheduler, and nobody who remembers everything.

    own share, from its beginning --> what others have left, from its end --> what is late
        --> suspects, alone --> what failed here, if nobody else is alive

Any number of processes do this at once. They know of each other by what each of them writes beside the voxels
and reads again now and then: receipts, so that what somebody else has done is not done again; heartbeats, so
that what somebody is at is left to him until it is late; and failures. What two have done at once is equal.

A process that fails at a block writes that down, leaves the block, and goes on. It is set aside once two
processes have failed at it, or at the end of one that finds no other alive and has failed at it twice.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from itertools import islice
from math import isfinite
from queue import Empty, SimpleQueue

from vemdiffuse_pipe.cluster import signals
from vemdiffuse_pipe.cluster.resources import check_memory, threads_per_worker
from vemdiffuse_pipe.cluster.walltime import BlockTimes, Deadline
from vemdiffuse_pipe.errors import DataError, TransientError
from vemdiffuse_pipe.models.protocol import Model
from vemdiffuse_pipe.output.opening import open_run_model
from vemdiffuse_pipe.output.provenance import write_filled_provenance
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.pricing.run_price import check_price_limit
from vemdiffuse_pipe.records.events import Listener, Outcome, RunEnded, RunStarted, silent
from vemdiffuse_pipe.records.parts import Part
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.render.block import Hardware
from vemdiffuse_pipe.running.crashes import CrashedError, CrashTracker
from vemdiffuse_pipe.running.durations import TIMES_THE_MEDIAN, BlockDurations
from vemdiffuse_pipe.running.local.pipeline import Ended, Inbox, Pipeline
from vemdiffuse_pipe.running.outcomes import EndedError, FailurePolicy
from vemdiffuse_pipe.running.progress import Progress
from vemdiffuse_pipe.running.session import begun
from vemdiffuse_pipe.running.stages import open_worker_context
from vemdiffuse_pipe.storage.retry import RetryPolicy, reason_of
from vemdiffuse_pipe.volume import Source

UNKNOWN_S = 5.0  # after which a block is late where nobody knows how long one takes
LOOKS = 10  # at what others have done, before that
LEFTOVERS = 256  # looked up at once, and taken in any order: helpers seldom take the same one
LOOKING, LOOKING_HELPING = 0.05, 0.5  # of the time at most, for reading what others have done
FRESH_S = 2.0  # between two looks, while others may be doing what is under way here
LONGER = "give it more, or make block_shape in [run] smaller"
HOPELESS_S = 5.0  # for blocks in flight to end by themselves, where nothing is hoped for


def run_part(
    plan: Plan,
    source: Source,
    part: Part,
    *,
    model: Model | None = None,
    listener: Listener = silent,
    max_blocks: int | None = None,
    retry_policy: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
    deadline: Deadline | None = None,
) -> Outcome:
    """Do `part` of what `plan` says and its output lacks, then help with what is left of the others.

    The output knows nothing of parts: the next process may divide it otherwise. `deadline`: when this process
    is ended. Raises what `run_plan` raises.
    """
    alone = _alone(plan)
    check_memory(alone)
    check_price_limit(plan)
    model = model or open_run_model(plan)
    inbox: Inbox = SimpleQueue()
    with begun(plan, listener, inbox.put) as run:
        progress, recorder = run.progress, run.recorder
        recorder.tell(_started(plan, progress, part))
        place = open_worker_context(
            plan, _hardware(alone), retry_policy, source, recorder.tell, model, recorder.journal
        )
        with recorder.told(plan, f"part {part}") as ended:
            with closing(place.receipts), Pipeline(place, inbox, progress.is_missing) as pipeline:
                endings = FailurePolicy(recorder, recorder.failed_here)
                shift = LocalWorker(
                    progress, pipeline, endings, deadline or Deadline(None), run.deaths, max_blocks
                )
                ended.stopped = shift.run(part, columns=plan.by_columns)
            shift.hear_the_last()
        drained = run.heard.asks_to_drain or shift.is_out_of_time
        outcome = progress.outcome(ended.stopped, drained=drained, interrupted=run.heard.interrupts)
    if not progress.n_missing():  # whoever ends last writes the same; an earlier one would write less
        write_filled_provenance(plan)
    recorder.tell(RunEnded(outcome))
    return outcome


class LocalWorker:
    """The work of one process: what it takes next, and when it goes."""

    def __init__(
        self,
        progress: Progress,
        pipeline: Pipeline,
        endings: FailurePolicy,
        deadline: Deadline,
        deaths: CrashTracker,
        max_blocks: int | None = None,
    ) -> None:
        self._progress = progress
        self._pipeline = pipeline
        self._endings = endings
        self._deadline = deadline
        self._deaths = deaths
        self._times = BlockTimes()
        self._pace = BlockDurations()
        self._n_left = float("inf") if max_blocks is None else max_blocks
        self._n_done = 0
        self._failed: dict[Work, BaseException] = {}
        self._is_last_try = False
        self._is_helping = False  # somebody else may be at the same block
        self._at_since: dict[int, float] = {}  # blocks that others are at, and since when that is known
        self._looks_at = time.monotonic()
        self.is_out_of_time = False

    def run(self, part: Part, *, columns: bool) -> str:
        """Do the part, then help. What ended it early, else ''."""
        for pieces in self._turns(part, columns):
            if stopped := self._do(pieces):
                return stopped
        while self._n_left > 0 and self._left(columns):
            if stopped := self._await_others(columns) or self._do(self._untouched(self._left(columns))):
                return stopped
        return self._try_again()

    def _try_again(self) -> str:
        """Do again what failed here, and blame it for good; but leave it to others, where there are any."""
        self._endings.settle()
        self._look()
        failed = {work: error for work, error in self._failed.items() if self._progress.is_missing(work)}
        if not failed:
            return ""
        if self._deaths.others_live:
            *_, error = failed.values()
            return f"{len(failed)} block(s) failed here, and are left to others ({reason_of(error)})"
        self._is_last_try = True
        return self._do(iter(failed))

    def hear_the_last(self) -> None:
        """Take in what came to its end while the pipeline was closed, and what others did meanwhile."""
        with suppress(Empty):
            while True:
                self._hear(self._pipeline.arrival(0))
        self._look()

    def _turns(self, part: Part, columns: bool) -> Iterator[Iterator[Work]]:
        """What is taken, one after the other; each is looked up when the one before is done."""
        self._look_for_deaths()
        yield self._unsuspected(self._progress.missing(columns=columns, share=part.own))
        self._is_helping = True
        self._look()
        helped = self._progress.missing(columns=columns, share=part.helped, backwards=True)
        yield self._untouched(self._unsuspected(work for work in helped if work not in self._failed))

    def _await_others(self, columns: bool) -> str:
        """Leave what is left to those who are at it, until it is late. What ended the wait early, else ''."""
        wait_s = self._late_after_s()
        ends = time.monotonic() + min(wait_s, self._deadline.left_s())
        while time.monotonic() < ends and self._is_at_work(self._left(columns)):
            with suppress(Empty):
                arrival = self._pipeline.arrival(wait_s / LOOKS)
                if isinstance(arrival, signal.Signals):
                    return f"{arrival.name} was received"
        return ""

    def _late_after_s(self) -> float:
        """Seconds after which what somebody else is at is late."""
        late_after_s = self._pace.late_after_s()
        return late_after_s if isfinite(late_after_s) else max(UNKNOWN_S, TIMES_THE_MEDIAN * self._times.p95)

    def _untouched(self, pieces: Iterable[Work]) -> Iterator[Work]:
        """Those that nobody else who lives is at, unless they are late."""
        for work in pieces:
            since = self._at_since.get(work.block_index)
            if since is None or time.monotonic() - since >= self._late_after_s():
                yield work

    def _is_at_work(self, left: list[Work]) -> bool:
        """True where somebody may be at what is left: for what is suspected, only if he says so."""
        at_work = self._deaths.elsewhere
        return self._deaths.others_live and any(
            w.block_index not in self._deaths.suspects or w.block_index in at_work for w in left
        )

    def _left(self, columns: bool) -> list[Work]:
        """Some of what nobody has done, in any order, but last what others are at; where all of it is
        suspected, one piece, alone.
        """
        self._look()
        left = list(islice(self._unsuspected(self._not_failed(columns)), LEFTOVERS))
        if not left:
            suspects = list(islice(self._not_failed(columns), LEFTOVERS))
            free = [work for work in suspects if work.block_index not in self._deaths.elsewhere]
            left = random.sample(free or suspects, min(1, len(suspects)))
        random.shuffle(left)
        return sorted(left, key=lambda work: work.block_index in self._at_since)

    def _not_failed(self, columns: bool) -> Iterator[Work]:
        missing = self._progress.missing(columns=columns, backwards=True)
        return (work for work in missing if work not in self._failed)

    def _unsuspected(self, pieces: Iterator[Work]) -> Iterator[Work]:
        return (work for work in pieces if work.block_index not in self._deaths.suspects)

    def _look_for_deaths(self) -> None:
        """Read of what others have died, and give up what they died of."""
        for work in self._deaths.read_again():
            self._endings.blame(work, CrashedError())
        now = time.monotonic()
        self._at_since = {index: self._at_since.get(index, now) for index in self._deaths.elsewhere}

    def _do(self, pieces: Iterator[Work]) -> str:
        while True:
            while self._pipeline.has_room and (work := self._next_of(pieces)) is not None:
                self._deaths.begin(work)
                self._pipeline.launch(work)
            if not self._pipeline.n_in_flight:
                return self._out_of_time() if self.is_out_of_time else ""
            arrival = self._next_arrival()
            if isinstance(arrival, signal.Signals):
                self._drain(signals.GRACE_S[arrival])
                return self._received(arrival)
            self._hear(arrival)
            if stopped := self._endings.hopeless():
                self._drain(HOPELESS_S)
                return stopped

    def _next_of(self, pieces: Iterator[Work]) -> Work | None:
        """The next piece that is still missing, while there is time for it."""
        if self.is_out_of_time or self._n_left <= 0:
            return None
        if time.monotonic() >= self._looks_at:
            self._look()
        work = next((piece for piece in pieces if self._progress.is_missing(piece)), None)
        if work is None:
            return None
        self.is_out_of_time = not self._deadline.leaves_time_for(self._times)
        if self.is_out_of_time:
            return None
        self._n_left -= 1
        return work

    def _next_arrival(self) -> Ended | signal.Signals | None:
        """What happens next. Meanwhile what others do is looked at, so that it is not done here as well."""
        while self._is_helping:
            with suppress(Empty):
                return self._pipeline.arrival(max(FRESH_S, self._looks_at - time.monotonic()))
            self._look()
        return self._pipeline.arrival()

    def _out_of_time(self) -> str:
        if self._n_done or self._is_helping:
            return "the time of this job is nearly over"
        return f"the time of this job is nearly over, and no block could be ended in it: {LONGER}"

    def _received(self, received: signal.Signals) -> str:
        if self._n_done or not self._deaths.has_begun:
            return f"{received.name} was received"
        return (
            f"{received.name} was received before a block could be ended; if that is its walltime: {LONGER}"
        )

    def _look(self) -> None:
        """Read what others have done and, to help them, what they are at. Where that fails, it is seen later,
        or done twice.
        """
        began = time.monotonic()
        with suppress(DataError, TransientError):
            self._progress.read_again()
        if self._is_helping:
            self._look_for_deaths()
        now = time.monotonic()
        looking = LOOKING_HELPING if self._is_helping else LOOKING
        self._looks_at = now + (now - began) * (1 / looking - 1)

    def _hear(self, arrival: Ended | signal.Signals | None) -> None:
        if not isinstance(arrival, Ended):
            return
        self._deaths.end(arrival.work)
        if arrival.error is None:
            self._times.add(arrival.seconds)
            self._pace.add(arrival.seconds)
            self._n_done += 1
            self._endings.done(arrival.work)
        elif isinstance(arrival.error, EndedError):
            return
        elif self._is_last_try:
            n_attempts = sum(
                getattr(error, "n_attempts", 1) for error in (self._failed[arrival.work], arrival.error)
            )
            self._endings.blame(arrival.work, arrival.error, n_attempts)
        else:
            self._failed[arrival.work] = arrival.error
            self._endings.failed(arrival.work, arrival.error)

    def _drain(self, grace_s: float) -> None:
        """Let blocks that are being rendered or stored end, while there is time; give the others back."""
        self._pipeline.give_back()
        ends = time.monotonic() + min(grace_s, self._deadline.left_s())
        with suppress(Empty):
            while self._pipeline.n_in_flight and (left_s := ends - time.monotonic()) > 0:
                self._hear(self._pipeline.arrival(left_s))


def _alone(plan: Plan) -> Plan:
    """The plan as one process does it, whatever workers the run file speaks of; a job has its own cores."""
    table, cluster = plan.run_file.run, plan.run_file.cluster
    alone = table.model_copy(update={"workers": 1, "engine": "threads"})
    threads = threads_per_worker(alone)
    if cluster is not None and table.threads is None:
        threads = min(threads, cluster.cores)
    table = alone.model_copy(update={"threads": threads})
    return replace(plan, run_file=plan.run_file.model_copy(update={"run": table}))


def _hardware(plan: Plan) -> Hardware:
    table = plan.run_file.run
    return Hardware(table.device, threads_per_worker(table), table.tile_batch)


def _started(plan: Plan, progress: Progress, part: Part) -> RunStarted:
    """What the part is; its voxels are its share of those that are missing."""
    n_missing = progress.n_missing()
    n_own = progress.n_missing(columns=plan.by_columns, share=part.own)
    return RunStarted(plan, n_own, round(progress.n_voxels_missing() * n_own / max(1, n_missing)))
