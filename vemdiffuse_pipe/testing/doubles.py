"""Small real doubles: sources whose voxels say where they are, that fail when told to, or take their time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from threading import Lock

import numpy as np

from vemdiffuse_pipe.errors import TransientError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Frame, Nm
from vemdiffuse_pipe.volume import OnHole, Source, VolumeSpec, Voxels, ignore_hole

PRIME = 251  # flat indices repeat after this many voxels, in step with no axis of another length

VOXEL_SIZE_NM: Nm = (Fraction(40), Fraction(8), Fraction(8))


def position_coded(shape: Zyx) -> Voxels:
    """Voxels that hold their flat index modulo 251: uint8, zyx."""
    return (np.arange(prod(shape)) % PRIME).astype(np.uint8).reshape(shape)


class ArraySource:
    """A volume in memory."""

    def __init__(self, voxels: Voxels, voxel_size_nm: Nm = VOXEL_SIZE_NM) -> None:
        z, y, x = voxels.shape
        self._voxels = voxels
        self._spec = VolumeSpec(
            url="memory",
            format="array",
            frame=Frame((z, y, x), voxel_size_nm),
            dtype="uint8",
            chunk_shape=(1, y, x),
            shard_shape=(1, y, x),
        )

    @classmethod
    def of_shape(cls, shape: Zyx) -> ArraySource:
        """The volume of `shape` whose voxels hold their flat index modulo 251."""
        return cls(position_coded(shape))

    @property
    def spec(self) -> VolumeSpec:
        """Its frame, and a section as its chunk."""
        return self._spec

    def read(self, box: Box, on_hole: OnHole = ignore_hole) -> Voxels:
        """A copy of the voxels of `box`."""
        assert self._spec.frame.box.contains(box), f"{box} is not inside {self._spec.frame.box}"
        return self._voxels[box.slices].copy()


@dataclass(frozen=True, slots=True)
class Failure:
    """The first `times` reads that touch `box` raise an `error`."""

    box: Box
    times: int = 1
    error: type[Exception] = TransientError


class FlakySource:
    """A source that fails where and as often as `failures` say, then works."""

    def __init__(self, source: Source, failures: Sequence[Failure]) -> None:
        self._source = source
        self._failures = tuple(failures)
        self._left = [failure.times for failure in failures]
        self._lock = Lock()

    @property
    def spec(self) -> VolumeSpec:
        """That of the source."""
        return self._source.spec

    def read(self, box: Box, on_hole: OnHole = ignore_hole) -> Voxels:
        """The voxels of `box`, unless a failure is left for it."""
        with self._lock:
            for i, failure in enumerate(self._failures):
                if self._left[i] > 0 and not failure.box.intersect(box).is_empty:
                    self._left[i] -= 1
                    raise failure.error(f"{box}: fails {self._left[i]} more times")
        return self._source.read(box, on_hole)


class SlowSource:
    """A source that waits before each read."""

    def __init__(self, source: Source, delay_s: float, sleep: Callable[[float], None] = time.sleep) -> None:
        self._source = source
        self._delay_s = delay_s
        self._sleep = sleep

    @property
    def spec(self) -> VolumeSpec:
        """That of the source."""
        return self._source.spec

    def read(self, box: Box, on_hole: OnHole = ignore_hole) -> Voxels:
        """The voxels of `box`, `delay_s` later."""
        self._sleep(self._delay_s)
        return self._source.read(box, on_hole)
