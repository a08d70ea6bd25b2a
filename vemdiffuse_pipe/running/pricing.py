"""A run's price: from a block that is rendered now, or from what the run file says of a GPU."""

from __future__ import annotations

from vemdiffuse_pipe.cluster.resources import threads_per_worker
from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.plan.price import Price, price, refuse_over_limit, stated_speed
from vemdiffuse_pipe.volume import Source


def n_workers(plan: Plan) -> int:
    """Workers that the run will have at once, where it is given all the jobs that it may have."""
    table, cluster = plan.run_file.run, plan.run_file.cluster
    if table.scheduler is not None and cluster is not None:
        return cluster.max_jobs * cluster.workers_a_job
    return table.workers


def measured_price(plan: Plan, source: Source) -> Price:
    """The price at the speed of this machine. Imports torch. Raises InputError, DataError, TransientError."""
    from vemdiffuse_pipe.records.shards import ShardSet
    from vemdiffuse_pipe.running.mask import find_outside, open_run_mask
    from vemdiffuse_pipe.running.measuring import measure_speed

    mask = open_run_mask(plan)
    outside = ShardSet(plan.shards) if mask is None else find_outside(plan, mask)
    if mask is not None and len(outside) == plan.shards.n_blocks:
        raise PlanError(
            f"mask {mask.spec.url} is 0 wherever the output is: nothing of it is wanted, so there is "
            "nothing to price; a run would skip every block"
        )
    share = 1 - outside.n_voxels() / plan.part.n_voxels
    return price(
        plan,
        measure_speed(plan, source, outside),
        n_workers=n_workers(plan),
        n_threads=threads_per_worker(plan.run_file.run, plan.run_file.cluster),
        wanted_share=share,
    )


def stated_price(plan: Plan) -> Price:
    """The price at the stated speed of a GPU, without a mask. Raises PlanError where none is stated."""
    return price(
        plan,
        stated_speed(plan.run_file.price),
        n_workers=n_workers(plan),
        n_threads=threads_per_worker(plan.run_file.run, plan.run_file.cluster),
    )


def refuse_what_costs_too_much(plan: Plan) -> None:
    """Raises PlanError where the run file says what a GPU does, and the run would take more than it may.

    Not where a mask leaves an unknown part of the volume, nor on a CPU, of which nothing is said.
    """
    table = plan.run_file.price
    is_known = table.tflops is not None and plan.run_file.mask is None and plan.run_file.run.device != "cpu"
    if is_known and table.max_gpu_hours is not None:
        refuse_over_limit(stated_price(plan), table)
