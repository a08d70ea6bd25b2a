"""Which device of torch computes."""

from __future__ import annotations

AUTO = "auto"


def device_here(device: str) -> str:
    """The device of torch that a run file's `device` means here: auto is cuda, or cpu without a GPU."""
    if device != AUTO:
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
