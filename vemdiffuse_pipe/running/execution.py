"""A plan, carried out: what is missing, the workers, the driver, and what is told and kept of each block."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from queue import SimpleQueue
from threading import Event as Flag
from threading import Lock

from distributed import Client

from vemdiffuse_pipe.errors import VemdiffuseError
from vemdiffuse_pipe.models.protocol import Model
from vemdiffuse_pipe.plan.estimate import BLOCKS_IN_FLIGHT
from vemdiffuse_pipe.plan.plan import Plan, digest
from vemdiffuse_pipe.render.block import Hardware
from vemdiffuse_pipe.running import signals
from vemdiffuse_pipe.running.driver import Inbox, drive
from vemdiffuse_pipe.running.engines import connect, is_in_process, n_workers, needed_cluster
from vemdiffuse_pipe.running.events import (
    BlockDone,
    BlockSetAside,
    Event,
    Listener,
    Outcome,
    RunEnded,
    RunStarted,
    silent,
)
from vemdiffuse_pipe.running.filled import note_what_was_filled
from vemdiffuse_pipe.running.opening import log_folder, open_output, open_run_model
from vemdiffuse_pipe.running.progress import Progress
from vemdiffuse_pipe.running.resources import refuse_what_does_not_fit, threads_per_worker
from vemdiffuse_pipe.running.retries import Patience
from vemdiffuse_pipe.running.shards import Work
from vemdiffuse_pipe.running.workers import OpenWorkplace, open_workplace, present, register
from vemdiffuse_pipe.storage import parse_address
from vemdiffuse_pipe.volume import Source


def run_plan(
    plan: Plan,
    source: Source,
    *,
    model: Model | None = None,
    listener: Listener = silent,
    max_blocks: int | None = None,
    patience: Patience = Patience(),  # noqa: B008 (frozen)
) -> Outcome:
    """Do what `plan` says and its output lacks. Workers that are processes open the source themselves.

    `model`: the plan's, where it is open already. Nothing is written before it is open: a model that cannot
    be used leaves no output behind. Raises PlanError, ConfigError, ModelError, OutputError, StorageFullError.
    """
    table = plan.run_file.run
    if table.scheduler is not None:
        needed_cluster(table, plan.run_file.cluster)
    refuse_what_does_not_fit(plan)
    model = model or open_run_model(plan, device="cpu" if table.is_elsewhere else None)
    open_output(plan)
    address = parse_address(plan.run_file.output.url)
    progress = Progress(address, digest(plan.identity()), plan.blocks, plan.shards)
    reporter = _Reporter(progress, _one_at_a_time(listener))
    inbox: Inbox = SimpleQueue()
    with signals.received(inbox.put), closing(progress):
        reporter.tell(RunStarted(plan, progress.n_missing(), progress.n_voxels_missing()))
        work = islice(progress.missing(columns=plan.by_columns), max_blocks)
        stopped = (
            _work_off(plan, source, model, work, reporter, inbox, patience) if progress.n_missing() else ""
        )
        outcome = progress.outcome(f"{stopped}; run again to go on from here" if stopped else "")
    note_what_was_filled(plan)
    reporter.tell(RunEnded(outcome))
    return outcome


def _work_off(
    plan: Plan,
    source: Source,
    model: Model,
    work: Iterator[Work],
    reporter: _Reporter,
    inbox: Inbox,
    patience: Patience,
) -> str:
    """Do the work. What ended it early, else ''."""
    key = secrets.token_hex(4)
    with _workers(plan, source, model, key, reporter.tell, patience) as client:
        window = BLOCKS_IN_FLIGHT * n_workers(client, plan.run_file.run, plan.run_file.cluster)
        return drive(client, key, work, window, reporter, inbox)


class _Reporter:
    """Keeps on disk and tells the listener how each block ended."""

    def __init__(self, progress: Progress, listener: Listener) -> None:
        self.tell = listener
        self._progress = progress

    def done(self, work: Work) -> None:
        self._progress.enter_done(work)
        self.tell(BlockDone(work.block_index, work.output_box.n_voxels))

    def set_aside(self, work: Work, reason: str, n_attempts: int) -> None:
        self.tell(BlockSetAside(self._progress.enter_set_aside(work, reason, n_attempts)))


class _EndedError(VemdiffuseError):
    """Rendering went on after the run had ended."""


@contextmanager
def _workers(
    plan: Plan, source: Source, model: Model, key: str, tell: Listener, patience: Patience
) -> Iterator[Client]:
    """A client whose workers are ready for tasks of the run `key`."""
    table, cluster = plan.run_file.run, plan.run_file.cluster
    hardware = Hardware(table.device, threads_per_worker(table, cluster), table.tile_batch)
    with ExitStack() as stack:
        if is_in_process(table):
            ended = Flag()
            place = open_workplace(plan, hardware, patience, source, _until(ended, tell), model)
            stack.enter_context(present(key, place))
        client = stack.enter_context(connect(table, cluster, log_folder(plan.run_file)))
        if is_in_process(table):
            stack.callback(ended.set)  # before the client closes: a long block ends at its next gap
        else:
            register(client, OpenWorkplace(key, plan, hardware, patience))
            if table.is_remote:  # its workers go on living
                stack.callback(client.unregister_worker_plugin, key)
        yield client


def _until(ended: Flag, tell: Listener) -> Listener:
    """Passes events on; after the end, it is how a render that nobody waits for comes to its own."""

    def tell_or_end(event: Event) -> None:
        if ended.is_set():
            raise _EndedError("the run has ended")
        tell(event)

    return tell_or_end


def _one_at_a_time(listener: Listener) -> Listener:
    """The listener, behind a lock: worker threads call it too."""
    lock = Lock()

    def tell(event: Event) -> None:
        with lock:
            listener(event)

    return tell
