"""Which GPU a worker process has: one, of those that its scheduler assigned to the job or the machine has."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from vemdiffuse_pipe.config import ClusterTable, RunTable
from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.models.device import AUTO

VISIBLE = "CUDA_VISIBLE_DEVICES"


def bind_gpu(
    worker_name: str,
    table: RunTable,
    cluster: ClusterTable | None,
    environ: MutableMapping[str, str] = os.environ,
) -> None:
    """Leave one GPU visible to this process, before CUDA looks: by the worker's number on its machine.

    Nothing is done where `device` is neither "cuda" nor "auto", where it is "auto" and no GPU was assigned,
    and on a cluster that somebody else started: its workers have been given theirs. Raises ConfigError where
    there are more workers than GPUs.
    """
    index = worker_index(worker_name, table, cluster)
    if table.device not in ("cuda", AUTO) or index is None:
        return
    if VISIBLE not in environ:
        environ[VISIBLE] = str(index)
        return
    assigned = [name for name in environ[VISIBLE].split(",") if name]
    if table.device == AUTO and not assigned:
        return
    if index >= len(assigned):
        raise ConfigError(
            f"worker {worker_name} is number {index + 1} of its machine, and {VISIBLE} is "
            f"{environ[VISIBLE][:80]!r}: {len(assigned)} GPU(s); one worker a GPU is needed"
        )
    environ[VISIBLE] = assigned[index]


def worker_index(worker_name: str, table: RunTable, cluster: ClusterTable | None) -> int | None:
    """The number of a worker among those of its machine or job, from 0; None where we do not number them.

    Local workers are called 0, 1, ..; of a job with more than one, name-0, name-1, ..
    """
    if table.engine == "local":
        return int(worker_name)
    if table.scheduler is not None:
        several = cluster is not None and cluster.workers_a_job > 1
        return int(worker_name.rsplit("-", 1)[-1]) if several else 0
    return None
