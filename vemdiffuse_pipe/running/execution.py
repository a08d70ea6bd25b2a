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
from vemdiffuse_pipe.cluster.resources import refuse_what_does_not_fit, threads_per_worker
from vemdiffuse_pipe.models.protocol import Model
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.records.events import DashboardServed, Listener, Outcome, RunEnded, RunStarted, silent
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.render.block import Hardware
from vemdiffuse_pipe.running.beginning import Begun, begun
from vemdiffuse_pipe.running.driver import Inbox, drive
from vemdiffuse_pipe.running.endings import Bookkeeper, until
from vemdiffuse_pipe.running.filled import note_what_was_filled
from vemdiffuse_pipe.running.opening import log_folder, open_run_model
from vemdiffuse_pipe.running.pricing import refuse_what_costs_too_much
from vemdiffuse_pipe.running.retries import Patience
from vemdiffuse_pipe.running.stages import open_workplace
from vemdiffuse_pipe.running.workers import OpenWorkplace, present, register
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
    check_engine(table, plan.run_file.cluster, log_folder(plan.run_file))
    refuse_what_does_not_fit(plan)
    check_dashboard(table)
    refuse_what_costs_too_much(plan)
    model = model or open_run_model(plan, device="cpu" if table.is_elsewhere else None)
    inbox: Inbox = SimpleQueue()
    with begun(plan, listener, inbox.put) as run:
        progress, keeper = run.progress, run.keeper
        keeper.tell(RunStarted(plan, progress.n_missing(), progress.n_voxels_missing()))
        if is_in_process(table):  # elsewhere dask sees who dies
            run.blame_what_processes_died_of()
        stopped = ""
        if progress.n_missing():
            stopped = _work_off(plan, source, model, run, inbox, max_blocks, patience)
        heard = run.heard
        outcome = progress.outcome(stopped, drained=heard.asks_to_drain, interrupted=heard.interrupts)
    note_what_was_filled(plan)
    keeper.tell(RunEnded(outcome))
    return outcome


def _work_off(
    plan: Plan,
    source: Source,
    model: Model,
    run: Begun,
    inbox: Inbox,
    max_blocks: int | None,
    patience: Patience,
) -> str:
    """Do the work, and then, one by one, what processes have died with. What ended it early, else ''."""
    key, keeper = secrets.token_hex(4), run.keeper
    table = plan.run_file.run

    with _workers(plan, source, model, key, keeper, patience) as client:
        dashboard = client.dashboard_link if table.dashboard else ""
        if dashboard:
            keeper.tell(DashboardServed(dashboard))
        with keeper.told(plan, table.engine, workers=table.workers, dashboard=dashboard) as ended:
            for work in _turns(run, is_in_process(table), max_blocks, columns=plan.by_columns):
                ended.stopped = drive(client, key, work, window(client, table), keeper, inbox, keeper.copied)
                if ended.stopped:
                    break
    return ended.stopped


def _turns(
    run: Begun, is_in_process: bool, max_blocks: int | None, *, columns: bool
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
    plan: Plan, source: Source, model: Model, key: str, keeper: Bookkeeper, patience: Patience
) -> Iterator[Client]:
    """A client whose workers are ready for tasks of the run `key`."""
    table, cluster = plan.run_file.run, plan.run_file.cluster
    hardware = Hardware(table.device, threads_per_worker(table, cluster), table.tile_batch)
    with ExitStack() as stack:
        if is_in_process(table):
            ended = Flag()
            tell = until(ended, keeper.tell)
            place = open_workplace(plan, hardware, patience, source, tell, model, keeper.journal)
            stack.enter_context(present(key, place))
        client = stack.enter_context(connect(table, cluster, log_folder(plan.run_file)))
        if is_in_process(table):
            stack.callback(ended.set)  # before the client closes: a long block ends at its next gap
        else:
            register(client, OpenWorkplace(key, plan, hardware, patience))
            if table.is_remote:  # its workers go on living
                stack.callback(client.unregister_worker_plugin, key)
        yield client
