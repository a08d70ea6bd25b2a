"""A run's price: from a block that is rendered now, or from what the run file says of a GPU."""

from __future__ import annotations

from vemdiffuse_pipe.cluster.resources import threads_per_worker
from vemdiffuse_pipe.config import RunFile
from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.models.device import AUTO, device_here
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.pricing.plan_price import Price, check_limit, price, stated_speed
from vemdiffuse_pipe.volume import Source


def workforce(plan: Plan, n_jobs: int | None = None) -> tuple[int, int]:
    """(workers at once, threads of each), where the run is given all the jobs that it may have.

    `n_jobs`: of a job array, whose jobs are one worker each; else what the engine starts, or, where the run
    file states max_jobs and its engine starts no jobs, the array that `submit` makes of it.
    """
    table, cluster = plan.run_file.run, plan.run_file.cluster
    n_threads = threads_per_worker(table, cluster)
    if n_jobs is None and cluster is not None:
        if table.scheduler is not None:
            return cluster.max_jobs * cluster.workers_a_job, n_threads
        if not table.is_remote and "max_jobs" in cluster.model_fields_set:
            n_jobs = cluster.max_jobs
    if n_jobs is None:
        return table.workers, n_threads
    return n_jobs, table.threads or (cluster.cores if cluster is not None else n_threads)


def measured_price(plan: Plan, source: Source, n_jobs: int | None = None) -> Price:
    """The price at the speed of this machine. Imports torch. `n_jobs`: see `workforce`.

    Raises InputError, DataError, TransientError.
    """
    from vemdiffuse_pipe.output.mask import find_outside, open_run_mask
    from vemdiffuse_pipe.pricing.measured_block import measure_speed
    from vemdiffuse_pipe.records.shards import ShardSet

    mask = open_run_mask(plan)
    outside = ShardSet(plan.shards) if mask is None else find_outside(plan, mask)
    if mask is not None and len(outside) == plan.shards.n_blocks:
        raise PlanError(
            f"mask {mask.spec.url} is 0 wherever the output is: nothing of it is wanted, so there is "
            "nothing to price; a run would skip every block"
        )
    share = 1 - outside.n_voxels() / plan.part.n_voxels
    n_workers, n_threads = workforce(plan, n_jobs)
    speed = measure_speed(plan, source, outside, n_threads=n_threads)
    return price(plan, speed, n_workers=n_workers, n_threads=n_threads, wanted_share=share)


def stated_price(plan: Plan, n_jobs: int | None = None) -> Price:
    """The price at the stated speed of a GPU, without a mask. Raises PlanError where none is stated."""
    n_workers, n_threads = workforce(plan, n_jobs)
    return price(plan, stated_speed(plan.run_file.price), n_workers=n_workers, n_threads=n_threads)


def check_price_limit(plan: Plan) -> None:
    """Raises PlanError where the run file says what a GPU does, and the run would take more than it may.

    Where that is not known `limit_not_checked` says so.
    """
    table = plan.run_file.price
    if table.max_gpu_hours is not None and not _unknown(plan.run_file):
        check_limit(stated_price(plan), table)


def limit_not_checked(run_file: RunFile) -> str:
    """A sentence about the limit that the run file states and only a measured price can be held against.

    '' where there is none, or where `check_price_limit` does it.
    """
    table = run_file.price
    if table.max_core_hours is None and table.max_gpu_hours is None:
        return ""  # before torch is imported, to see which device there is
    unit = "core" if _is_on_cpu(run_file) else "gpu"
    limit = table.max_core_hours if unit == "core" else table.max_gpu_hours
    why = _unknown(run_file)
    if limit is None or not why:
        return ""
    return (
        f"max_{unit}_hours = {limit:,.4g} is not checked here, for {why}; `vemdiffuse plan FILE --price` "
        "renders a block and checks it"
    )


def _unknown(run_file: RunFile) -> str:
    """Why the hours of the run are not known before a block is rendered; '' where they are."""
    if _is_on_cpu(run_file):
        return "nothing says how fast a core is"
    if run_file.price.tflops is None:
        return "[price] has no tflops, which says how fast a GPU is"
    return "how much a mask leaves is not known yet" if run_file.mask is not None else ""


def _is_on_cpu(run_file: RunFile) -> bool:
    """True where the run will use no GPU; auto is what a job of [cluster] has, else what this machine has."""
    if run_file.run.device == AUTO and run_file.cluster is not None:
        return run_file.cluster.gpus == 0
    return device_here(run_file.run.device) == "cpu"
