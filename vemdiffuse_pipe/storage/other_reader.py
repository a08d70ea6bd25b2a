"""An array that may be stored in more than one way, of which its metadata names the wrong one, or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import DataError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage.levels import Reader


class OtherReader:
    """Reads as the metadata says. What fails so with `error`, before anything was read, is tried otherwise.

    The first reader of `others` that can read it takes the place for good. They are opened when they are
    needed: an array that is as it says costs no request more.
    """

    def __init__(
        self, reader: Reader, others: Sequence[Callable[[], Reader]], error: type[DataError]
    ) -> None:
        self._reader, self._others, self._error = reader, tuple(map(cache, others)), error
        self.shape, self.dtype, self.codec = reader.shape, reader.dtype, reader.codec
        self.chunk_shape, self.shard_shape = reader.chunk_shape, reader.shard_shape
        self.read_by = reader.read_by

    @property
    def fill_value(self) -> int | float:
        """What an absent chunk stands for. Raises MissingDataError where nobody can say."""
        return self._reader.fill_value

    def read(self, box: Box) -> NDArray[np.generic]:
        """The voxels of `box`, zyx. Raises DataError or TransientError, of the reader that came first."""
        try:
            voxels = self._reader.read(box)
        except self._error:
            if (read := self._read_otherwise(box)) is None:
                raise
            voxels = read
        self._others = ()
        return voxels

    def _read_otherwise(self, box: Box) -> NDArray[np.generic] | None:
        for opened in self._others:
            with suppress(DataError):
                other = opened()
                voxels = other.read(box)
                self._reader = other
                return voxels
        return None
