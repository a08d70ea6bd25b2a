"""A plan, carried out: its output, its job, and the runner of the situation."""

from __future__ import annotations

from dataclasses import dataclass

from vemdiffuse_pipe.cluster.resources import in_this_process, threads_per_worker
from vemdiffuse_pipe.cluster.walltime import Deadline
from vemdiffuse_pipe.models.protocol import Model
from vemdiffuse_pipe.output.mask import start_output
from vemdiffuse_pipe.output.preparation import log_folder, open_run_model
from vemdiffuse_pipe.output.run_output import RunOutput
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.records.events import Listener, Outcome, silent
from vemdiffuse_pipe.records.parts import Part
from vemdiffuse_pipe.render.block import Hardware
from vemdiffuse_pipe.running.levels.pyramid import pyramid
from vemdiffuse_pipe.running.local.runner import LocalRunner
from vemdiffuse_pipe.running.preconditions import Where, check_run
from vemdiffuse_pipe.running.render_job import RenderJob
from vemdiffuse_pipe.running.runner import Runner, run_job
from vemdiffuse_pipe.storage.retry import RetryPolicy
from vemdiffuse_pipe.volume import Source


@dataclass(frozen=True, slots=True)
class Limits:
    """How long, how often and how much a runner tries."""

    max_blocks: int | None = None
    """No more are started; None for all."""
    retry_policy: RetryPolicy = RetryPolicy()  # noqa: RUF009 (frozen)
    """How often a stage of a block is repeated."""
    deadline: Deadline | None = None
    """When this process is ended."""
    recheck_s: float | None = None
    """See `LocalRunner`."""


def run_plan(
    plan: Plan,
    source: Source,
    *,
    part: Part | None = None,
    model: Model | None = None,
    listener: Listener = silent,
    max_blocks: int | None = None,
    retry_policy: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
    deadline: Deadline | None = None,
    recheck_s: float | None = None,
) -> Outcome:
    """Check what must hold, then do what `plan` says and its output lacks.

    `part`: in this process alone, and what others leave. `model`: the plan's, where it is open already.
    `max_blocks`: start no more. `deadline`: when this process is ended. `recheck_s`: see `LocalRunner`.
    Nothing is written before the model is open. Raises InputError, StorageFullError, DataError.
    """
    check_run(plan, Where.THIS_PROCESS if part else Where.ENGINE)
    limits = Limits(max_blocks, retry_policy, deadline, recheck_s)
    return run_checked_plan(plan, source, part=part, model=model, listener=listener, limits=limits)


def run_checked_plan(
    plan: Plan,
    source: Source,
    *,
    part: Part | None = None,
    model: Model | None = None,
    output: RunOutput | None = None,
    listener: Listener = silent,
    limits: Limits = Limits(),
) -> Outcome:
    """As `run_plan`, where `check_run` was called already. `output`: the plan's, where it is open already.

    Where the run file asks for a pyramid, its levels follow the last block; the outcome is then that of the
    first job that is not complete.
    """
    if part is not None:
        plan = in_this_process(plan)
    table = plan.run_file.run
    if model is None:
        model = open_run_model(plan, device="cpu" if table.is_elsewhere else None)
    output = start_output(plan, output)
    hardware = Hardware(table.device, threads_per_worker(table, plan.run_file.cluster), table.tile_batch)
    job = RenderJob(plan, hardware, source, model, output)
    outcome = run_job(job, choose_runner(plan, part, limits), listener=listener)
    if not (outcome.is_complete and plan.run_file.output.pyramid):
        return outcome
    levels = pyramid(output.url, runner=lambda: choose_runner(plan, part, limits), listener=listener).outcome
    return outcome if levels is None or levels.is_complete else levels


def choose_runner(plan: Plan, part: Part | None = None, limits: Limits = Limits()) -> Runner:
    """The runner of a plan: this process for a part and for engine threads, else dask."""
    table = plan.run_file.run
    if part is not None or table.engine == "threads":
        return LocalRunner(
            part,
            n_workers=1 if part else table.workers,
            deadline=limits.deadline,
            max_blocks=limits.max_blocks,
            retry_policy=limits.retry_policy,
            recheck_s=limits.recheck_s,
        )
    from vemdiffuse_pipe.running.dask.runner import DaskRunner  # imports dask

    return DaskRunner(
        table,
        plan.run_file.cluster,
        log_folder(plan.run_file),
        max_blocks=limits.max_blocks,
        retry_policy=limits.retry_policy,
    )
