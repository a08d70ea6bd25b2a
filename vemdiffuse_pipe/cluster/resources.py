"""Memory and cores of this machine, compared with what a plan needs. Imports neither dask nor torch."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil

from vemdiffuse_pipe.config import ClusterTable, RunTable
from vemdiffuse_pipe.plan.estimate import Estimate, check_size, estimate
from vemdiffuse_pipe.plan.plan import Plan

V1_FILES = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def threads_per_worker(table: RunTable, cluster: ClusterTable | None = None) -> int:
    """Tiles that a worker renders at once: as asked for, else its share of the cores that we may use.

    Those are the job's where workers are batch jobs; 1 is assumed where somebody else started them.
    """
    if table.threads:
        return table.threads
    if table.scheduler is not None:
        return max(1, cluster.cores // cluster.workers_a_job) if cluster else 1
    return 1 if table.is_remote else max(1, _n_cores() // table.workers)


def in_this_process(plan: Plan) -> Plan:
    """The plan as one process does it, whatever workers the run file names; a batch job has its own cores."""
    table, cluster = plan.run_file.run, plan.run_file.cluster
    threads = table.threads
    if threads is None:
        threads = threads_per_worker(RunTable())
        threads = threads if cluster is None else min(threads, cluster.cores)
    update = {"workers": 1, "engine": "threads", "threads": threads}
    table = table.model_copy(update=update)
    return replace(plan, run_file=plan.run_file.model_copy(update={"run": table}))


def estimate_here(plan: Plan) -> Estimate:
    """The costs of the plan with the threads that its workers would have here."""
    return estimate(plan, n_threads=threads_per_worker(plan.run_file.run, plan.run_file.cluster))


def check_memory(plan: Plan) -> None:
    """Raises PlanError where the plan may need more memory than its workers have."""
    table, cluster = plan.run_file.run, plan.run_file.cluster
    if table.scheduler is not None and cluster is not None:
        check_job_memory(plan, cluster, cluster.workers_a_job)
    if table.is_elsewhere:  # the memory of other machines is not known
        return
    available = min(psutil.virtual_memory().available, memory_left_to_group())
    check_size(plan, estimate_here(plan), int(available), table.workers)


def check_memory_limit(plan: Plan) -> None:
    """Raises PlanError where the plan may need more memory than the run file allows, wherever it runs."""
    table = plan.run_file.run
    if table.max_memory_gb is not None:
        check_size(plan, estimate_here(plan), int(table.max_memory_gb * 1e9), table.workers)


def check_job_memory(plan: Plan, cluster: ClusterTable, n_workers: int) -> None:
    """Raises PlanError where `n_workers` processes may need more memory than a job is given."""
    n_threads = plan.run_file.run.threads or max(1, cluster.cores // n_workers)
    figures = estimate(plan, n_threads=n_threads)
    check_size(plan, figures, int(cluster.memory_gb * 1e9), n_workers)


def memory_left_to_group(
    groups: Path = Path("/sys/fs/cgroup"), mine: Path = Path("/proc/self/cgroup")
) -> float:
    """Bytes that the control groups of this process still allow: a batch job's limit, or a container's.

    Versions 1 and 2 of Linux's control groups; infinite where there is no limit, or no control group.
    """
    left = [float("inf")]
    for _, kinds, path in (line.split(":", 2) for line in _lines(mine)):
        is_second = kinds == ""
        if not is_second and "memory" not in kinds.split(","):
            continue
        top = groups if is_second else groups / "memory"
        limit, usage = ("memory.max", "memory.current") if is_second else V1_FILES
        group = top / path.strip("/")
        for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(top))):
            with suppress(OSError, ValueError):  # "max", and the top group of version 2, which has no limit
                left.append(int((folder / limit).read_text()) - int((folder / usage).read_text()))
    return min(left)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def _n_cores() -> int:
    """Cores that this process may use; all cores where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
