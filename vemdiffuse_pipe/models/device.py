"""Which device of torch computes."""

from __future__ import annotations

from pathlib import Path

AUTO = "auto"
DRIVER_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")  # Linux, and Windows' Linux


def with_gpu(device: str) -> str:
    """The device, auto made cuda where there is a GPU. Torch is imported only where a driver is installed."""
    may_have_gpu = any(Path(file).exists() for file in DRIVER_FILES)
    return "cuda" if device == AUTO and may_have_gpu and device_here(device) == "cuda" else device


def device_here(device: str) -> str:
    """The device of torch that a run file's `device` means here: auto is cuda, or cpu without a GPU."""
    if device != AUTO:
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
