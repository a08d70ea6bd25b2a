"""Which GPU a worker process has: one, of those that its scheduler assigned to the job or the machine has."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping, MutableMapping
from itertools import takewhile

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
    assigned = visible_devices(environ)
    if VISIBLE not in environ and not assigned:  # whatever there is, it does not list itself
        environ[VISIBLE] = str(index)
        return
    if table.device == AUTO and not assigned:
        return
    if index >= len(assigned):
        raise ConfigError(
            f"worker {worker_name} is number {index + 1} of its machine, and {VISIBLE} is "
            f"{environ.get(VISIBLE, 'not set')[:80]!r}: {len(assigned)} GPU(s); one worker a GPU is needed"
        )
    environ[VISIBLE] = assigned[index]


def visible_devices(
    environ: Mapping[str, str] = os.environ, listing: Callable[[], str] = lambda: _nvidia_smi("-L")
) -> list[str]:
    """Names of the GPUs that this process may use, as CUDA takes them: numbers, UUIDs or MIG instances.

    Those of CUDA_VISIBLE_DEVICES where it is set, up to a name that is no device, as CUDA reads it; else
    those that `listing` has, the output of `nvidia-smi -L`: of a GPU that is divided its instances.
    """
    if VISIBLE in environ:
        names = (name.strip() for name in environ[VISIBLE].split(","))
        return list(takewhile(lambda name: name not in ("", "-1", "NoDevFiles"), names))
    devices: list[str] = []
    for line in listing().splitlines():
        if found := re.search(r"^\s*MIG .*UUID: (MIG-[\w/-]+)", line):
            if devices and not devices[-1].startswith("MIG-"):
                devices.pop()  # the GPU that is divided
            devices.append(found[1])
        elif found := re.match(r"GPU (\d+):", line):
            devices.append(found[1])
    return devices


def _nvidia_smi(option: str) -> str:
    """What nvidia-smi prints; '' where there is none, or it fails."""
    try:
        command = ["nvidia-smi", option]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


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
