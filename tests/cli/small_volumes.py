"""What the tests of the command line work on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHAPE = (4, 23, 37)
VOXEL_SIZE = ("--voxel-size", "50", "10", "10")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


def sections(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Voxels that hold their flat index modulo 251."""
    return (np.arange(np.prod(shape)) % 251).astype(np.uint8).reshape(shape)
