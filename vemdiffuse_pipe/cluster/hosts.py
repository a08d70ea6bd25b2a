"""Where a process works: the job of a batch system that it belongs to, and its device by name.

Torch is imported only for a GPU, or to see whether there is one: to look at a run needs none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import psutil

from vemdiffuse_pipe.models.device import device_here, with_gpu


def job_id(environment: Mapping[str, str] = os.environ) -> str:
    """The job that this process is part of, as its batch system calls it; '' where there is none.

    '4711', and for a member of an array '4711_3' (Slurm), '4711[3]' (LSF, PBS) or '4711.3' (Grid Engine).
    """
    if array := environment.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{environment.get('SLURM_ARRAY_TASK_ID', '')}"
    if job := environment.get("SLURM_JOB_ID"):
        return job
    if job := environment.get("LSB_JOBID"):
        index = environment.get("LSB_JOBINDEX", "0")
        return job if index == "0" else f"{job}[{index}]"
    if job := environment.get("PBS_JOBID"):
        return job
    if task := environment.get("SGE_TASK_ID"):  # JOB_ID alone may be anybody's
        job = environment.get("JOB_ID", "")
        return job if task == "undefined" else f"{job}.{task}"
    return ""


def numbers_of_processes() -> int:
    """Whose numbers of processes are meant, a container's or the machine's; 0 where that is not known."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def is_gone(pid: int, numbers: int) -> bool:
    """True where a process of this machine surely runs no more. `numbers`: whose number `pid` is."""
    can_be_seen = 0 < pid < 1 << 31 and numbers != 0 and numbers == numbers_of_processes()
    return can_be_seen and not psutil.pid_exists(pid)


def device_name(device: str) -> str:
    """'cpu', or the device and what it is: 'cuda:0 NVIDIA H200'."""
    device = device_here(device)
    if not device.startswith("cuda"):
        return device
    import torch

    index = torch.device(device).index
    index = torch.cuda.current_device() if index is None else index
    return f"cuda:{index} {torch.cuda.get_device_name(index)}"


def gpu_bytes(device: str) -> int | None:
    """Memory of a GPU in bytes, whoever uses it now; None where `device` is no CUDA device of this
    machine.
    """
    device = with_gpu(device)
    if not device.startswith("cuda"):
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    return int(torch.cuda.get_device_properties(torch.device(device)).total_memory)


def peak_gpu_bytes(device: str) -> int:
    """Most memory of the GPU that this process has held so far; 0 on a CPU."""
    device = device_here(device)
    if not device.startswith("cuda"):
        return 0
    import torch

    return torch.cuda.max_memory_allocated(device)
