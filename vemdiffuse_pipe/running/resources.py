"""What this machine has, held against what a plan needs. Imports neither dask nor torch."""

from __future__ import annotations

import os

import psutil

from vemdiffuse_pipe.config import RunTable
from vemdiffuse_pipe.plan.estimate import Estimate, estimate, refuse_if_too_large
from vemdiffuse_pipe.plan.plan import Plan


def threads_per_worker(table: RunTable) -> int:
    """Tiles that a worker renders at once: as asked for, else its share of the cores that we may use."""
    return table.threads or max(1, _n_cores() // table.workers)


def estimate_here(plan: Plan) -> Estimate:
    """The costs of the plan with the threads that its workers would have here."""
    return estimate(plan, n_threads=threads_per_worker(plan.run_file.run))


def refuse_what_does_not_fit(plan: Plan) -> None:
    """Raises PlanError where the plan may need more memory than there is, or than the run file allows."""
    table = plan.run_file.run
    available = min(psutil.virtual_memory().available, (table.max_memory_gb or float("inf")) * 1e9)
    refuse_if_too_large(plan, estimate_here(plan), int(available), table.workers)


def _n_cores() -> int:
    """Cores that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
