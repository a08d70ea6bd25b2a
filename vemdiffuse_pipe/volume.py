"""What a volume is to the rest of the house: a frozen description and two small protocols."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Frame

Voxels = NDArray[np.uint8]
OnHole = Callable[[Box], None]

CACHE_BYTES = 128 * 10**6  # decoded chunks that an open source keeps for the next read


def ignore_hole(hole: Box) -> None:
    """For whoever does not ask which voxels were filled."""


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """One level of a volume, as its metadata states it.

    `dtype`: what is stored. `chunk_shape`: unit of reading; `shard_shape`: unit of writing, equal to
    the chunk where the format has no shards. `n_levels`: how many the volume has. All shapes zyx.
    """

    url: str
    format: str
    frame: Frame
    dtype: str
    chunk_shape: Zyx
    shard_shape: Zyx
    level: str = "0"
    n_levels: int = 1

    @property
    def shape(self) -> Zyx:
        """Voxels, zyx."""
        return self.frame.shape


class Source(Protocol):
    """A volume that can be read: uint8 grey levels, zyx."""

    @property
    def spec(self) -> VolumeSpec:
        """What the metadata says."""
        ...

    def read(self, box: Box, on_hole: OnHole = ignore_hole) -> Voxels:
        """The voxels of `box`, which lies inside the volume: uint8, zyx.

        `on_hole` hears of each part that the volume does not have and that was filled, where that was asked
        for. Raises MissingDataError, CorruptDataError or TransientError; never invents a voxel in silence.
        """
        ...


class Sink(Protocol):
    """An output group: `em`, and `uncertainty` where the model draws more than one sample."""

    @property
    def spec(self) -> VolumeSpec:
        """Shape, frame, chunks and shards, the same for every array of the group."""
        ...

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays that a block must write."""
        ...

    def write(self, array: str, box: Box, voxels: Voxels) -> None:
        """Write whole shards of one array, durably, before returning.

        Raises MisalignedWriteError unless `box` is made of whole shards; StorageFullError.
        """
        ...

    def read(self, array: str, box: Box) -> Voxels:
        """What is stored: for verification. Raises MissingDataError, CorruptDataError."""
        ...
