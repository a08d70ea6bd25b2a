"""A plan, carried out: what is missing, the workers, the driver, and what is told and kept of each block."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from queue import SimpleQueue
from threading import Event as Flag

from distributed import Client

from vemdiffuse_pipe.cluster.engines import check_dashboard, check_engine, connect, is_in_process, window
from vemdiffuse_pipe.cluster.resources import check_memory, threads_per_worker
from vemdiffuse_pipe.models.protocol import Model
from vemdiffuse_pipe.output.opening import log_folder, open_run_model
from vemdiffuse_pipe.output.provenance import write_filled_provenance
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.pricing.run_price import check_price_limit
from vemdiffuse_pipe.records.events import DashboardServed, Listener, Outcome, RunEnded, RunStarted, silent
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.render.block import Hardware
from vemdiffuse_pipe.running.dask.driver import Inbox, drive
from vemdiffuse_pipe.running.dask.worker import WorkerContextPlugin, present, register
from vemdiffuse_pipe.running.outcomes import RunRecorder, until
from vemdiffuse_pipe.running.session import RunSession, begun
from vemdiffuse_pipe.running.stages import open_worker_context
from vemdiffuse_pipe.storage.retry import RetryPolicy
from vemdiffuse_pipe.volume import Source


def run_plan(
    plan: Plan,
    source: Source,
    *,
    model: Model | None = None,
    listener: Listener = silent,
    max_blocks: int | None = None,
    retry_policy: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
) -> Outcome:
    """Do what `plan` says and its output lacks. Workers that are processes open the source themselves.

    `model`: the plan's, where it is open already. Nothing is written before it is open: a model that cannot
    be used leaves no output behind. Raises PlanError, ConfigError, ModelError, OutputError, StorageFullError.
    """
    table = plan.run_file.run
    check_engine(table, plan.run_file.cluster, log_folder(plan.run_file))
    check_memory(plan)
    check_dashboard(table)
    check_price_limit(plan)
    model = model or open_run_model(plan, device="cpu" if table.is_elsewhere else None)
    inbox: Inbox = SimpleQueue()
    with begun(plan, listener, inbox.put) as run:
        progress, recorder = run.progress, run.recorder
        recorder.tell(RunStarted(plan, progress.n_missing(), progress.n_voxels_missing()))
        if is_in_process(table):  # elsewhere dask sees who dies
            run.mark_crashing_blocks_failed()
        stopped = ""
        if progress.n_missing():
            stopped = _run_workers(plan, source, model, run, inbox, max_blocks, retry_policy)
        heard = run.heard
        outcome = progress.outcome(stopped, drained=heard.asks_to_drain, interrupted=heard.interrupts)
    write_filled_provenance(plan)
    recorder.tell(RunEnded(outcome))
    return outcome


def _run_workers(
    plan: Plan,
    source: Source,
    model: Model,
    run: RunSession,
    inbox: Inbox,
    max_blocks: int | None,
    retry_policy: RetryPolicy,
) -> str:
    """Do the work, and then, one by one, what processes have died with. What ended it early, else ''."""
    key, recorder = secrets.token_hex(4), run.recorder
    table = plan.run_file.run

    with _workers(plan, source, model, key, recorder, retry_policy) as client:
        dashboard = client.dashboard_link if table.dashboard else ""
        if dashboard:
            recorder.tell(DashboardServed(dashboard))
        with recorder.told(plan, table.engine, workers=table.workers, dashboard=dashboard) as ended:
            for work in _turns(run, is_in_process(table), max_blocks, columns=plan.by_columns):
                ended.stopped = drive(
                    client, key, work, window(client, table), recorder, inbox, recorder.copied
                )
                if ended.stopped:
                    break
    return ended.stopped


def _turns(
    run: RunSession, is_in_process: bool, max_blocks: int | None, *, columns: bool
) -> Iterator[Iterator[Work]]:
    """All that is missing; in this process, what processes have died with comes last, each by itself."""
    missing = run.progress.missing(columns=columns)
    if not is_in_process:  # dask sees who dies
        yield islice(missing, max_blocks)
        return
    suspects = run.deaths.suspects
    yield islice(run.deaths.naming_the_first(w for w in missing if w.block_index not in suspects), max_blocks)
    if suspects and max_blocks is None:
        for work in [w for w in run.progress.missing(columns=columns) if w.block_index in suspects]:
            run.deaths.begin(work)
            yield iter([work])
            run.deaths.end(work)


@contextmanager
def _workers(
    plan: Plan, source: Source, model: Model, key: str, recorder: RunRecorder, retry_policy: RetryPolicy
) -> Iterator[Client]:
    """A client whose workers are ready for tasks of the run `key`."""
    table, cluster = plan.run_file.run, plan.run_file.cluster
    hardware = Hardware(table.device, threads_per_worker(table, cluster), table.tile_batch)
    with ExitStack() as stack:
        if is_in_process(table):
            ended = Flag()
            tell = until(ended, recorder.tell)
            place = open_worker_context(plan, hardware, retry_policy, source, tell, model, recorder.journal)
            stack.enter_context(present(key, place))
        client = stack.enter_context(connect(table, cluster, log_folder(plan.run_file)))
        if is_in_process(table):
            stack.callback(ended.set)  # before the client closes: a long block ends at its next gap
        else:
            register(client, WorkerContextPlugin(key, plan, hardware, retry_policy))
            if table.is_remote:  # its workers go on living
                stack.callback(client.unregister_worker_plugin, key)
        yield client
