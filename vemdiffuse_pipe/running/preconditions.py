"""What must hold before a run may start: one ordered list, for `run`, `--part`, `--dry-run` and `submit`.

A precondition that only one of these checks is no precondition. What they differ in is where the work is
done:

    ENGINE          by the engine of the run file            run, run --dry-run
    THIS_PROCESS    by this process alone                    run --part, run --part --dry-run
    JOBS            by the jobs of an array, elsewhere       submit, submit --dry-run

Checks that need the open source (its shape, its metadata, what [source.assume] states) are made when the plan
is made. Imports neither dask nor torch unless a GPU is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from vemdiffuse_pipe.cluster.hosts import gpu_bytes
from vemdiffuse_pipe.cluster.resources import (
    check_job_memory,
    check_memory,
    check_memory_limit,
    in_this_process,
)
from vemdiffuse_pipe.errors import ConfigError, PlanError
from vemdiffuse_pipe.output.mask import is_outside_known, open_run_mask
from vemdiffuse_pipe.output.measurements import with_choices
from vemdiffuse_pipe.output.preparation import log_folder
from vemdiffuse_pipe.output.run_output import check_is_of, find_run_output
from vemdiffuse_pipe.plan.estimate import least_gpu_bytes
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.pricing.run_price import check_price_limit
from vemdiffuse_pipe.storage import parse_address
from vemdiffuse_pipe.storage.sink import check_place


class Where(Enum):
    """Who does the work."""

    ENGINE = "the engine of the run file"
    THIS_PROCESS = "a single process"
    JOBS = "the job array"


@dataclass(frozen=True, slots=True)
class Precondition:
    """One thing that must hold."""

    name: str
    """As tests and documents call it."""
    check: Callable[[Plan, Where], None]
    """Raises InputError, in one sentence, where it does not hold."""


def check_run(plan: Plan, where: Where) -> None:
    """Raises the InputError of the first precondition that does not hold. Nothing is written."""
    for precondition in PRECONDITIONS:
        precondition.check(plan, where)


def is_on_this_machine(plan: Plan, where: Where) -> bool:
    """True where blocks are rendered by processes of this machine."""
    return where is Where.THIS_PROCESS or (where is Where.ENGINE and not plan.run_file.run.is_elsewhere)


def _check_cluster(plan: Plan, where: Where) -> None:
    table, cluster = plan.run_file.run, plan.run_file.cluster
    if cluster is None and (where is Where.JOBS or table.scheduler is not None):
        who = "a job array" if where is Where.JOBS else f"engine {table.engine}"
        raise ConfigError(
            f"{who} needs a [cluster] table in the run file: memory_gb at least, and as a rule queue, "
            "walltime and max_jobs"
        )


def _check_dashboard(plan: Plan, where: Where) -> None:
    table = plan.run_file.run
    if not table.dashboard:
        return
    if where is not Where.ENGINE:
        raise ConfigError(
            f"dask's dashboard shows worker processes of dask; {where.value} starts none: leave dashboard out"
        )
    if table.engine == "threads":
        raise ConfigError(
            "dask's dashboard shows worker processes, and this run has none: add --engine local, or leave "
            "dashboard out"
        )
    from vemdiffuse_pipe.cluster.engines import check_dashboard  # imports dask

    check_dashboard()


def _check_engine(plan: Plan, where: Where) -> None:
    table = plan.run_file.run
    if where is Where.ENGINE and table.scheduler is not None:
        from vemdiffuse_pipe.cluster.engines import check_engine  # imports dask

        check_engine(table, plan.run_file.cluster, log_folder(plan.run_file))


def _check_device(plan: Plan, where: Where) -> None:
    device = plan.run_file.run.device
    if device not in ("cpu", "auto") and is_on_this_machine(plan, where):
        from vemdiffuse_pipe.models.checkpoint import check_device  # imports torch

        check_device(device)


def _check_memory_limit(plan: Plan, _: Where) -> None:
    check_memory_limit(plan)


def _check_memory(plan: Plan, where: Where) -> None:
    if where is Where.JOBS:
        assert plan.run_file.cluster is not None  # checked before
        check_job_memory(plan, plan.run_file.cluster, 1)
    else:
        check_memory(in_this_process(plan) if where is Where.THIS_PROCESS else plan)


def _check_gpu_memory(plan: Plan, where: Where) -> None:
    if is_on_this_machine(plan, where):
        check_gpu_memory(plan, gpu_bytes(plan.run_file.run.device))


def check_gpu_memory(plan: Plan, available_bytes: int | None) -> None:
    """Raises PlanError where a batch of tiles may need more than a GPU of so many bytes; None: no GPU.

    Of a batch that is chosen by itself, one tile is needed.
    """
    needed = least_gpu_bytes(plan)
    if available_bytes is not None and needed > available_bytes:
        raise PlanError(
            f"tiles of {plan.lattice.tile_px} px in batches of {plan.run_file.run.tile_batch} may need "
            f"{needed / 1e9:.2f} GB of GPU memory; {plan.run_file.run.device} has "
            f"{available_bytes / 1e9:.2f} GB; choose a smaller tile_batch in [run], or a smaller core_px "
            "or tile_px in [model]"
        )


def _check_price(plan: Plan, _: Where) -> None:
    check_price_limit(plan)


def _check_mask(plan: Plan, _: Where) -> None:
    if not is_outside_known(plan):
        open_run_mask(plan)


def _check_output(plan: Plan, _: Where) -> None:
    """An output can be made there, or is the plan's own.

    Only the fields that are known before the source is measured: the others are compared when it starts.
    """
    output = find_run_output(plan)
    if output is None:
        check_place(parse_address(plan.run_file.output.url), plan.arrays)
    else:
        check_is_of(output, with_choices(plan, output), is_measured=False)


PRECONDITIONS = (
    Precondition("cluster", _check_cluster),
    Precondition("dashboard", _check_dashboard),
    Precondition("engine", _check_engine),
    Precondition("memory limit", _check_memory_limit),
    Precondition("memory", _check_memory),
    Precondition("price limit", _check_price),
    Precondition("device", _check_device),
    Precondition("GPU memory", _check_gpu_memory),
    Precondition("mask", _check_mask),
    Precondition("output", _check_output),
)
