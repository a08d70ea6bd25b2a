"""Volumes that are stored section by section: a page is the unit of reading, and the last ones are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.storage import faults, metadata
from vemdiffuse_pipe.storage.address import Address

Page = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class PageKind:
    """What all pages of a stack have in common: their shape, yx, and numpy's name of their type."""

    shape: tuple[int, ...]
    dtype: str


class PageReader:
    """Sections that are decoded one at a time by `section`; `cache_bytes` of them are kept, at least one.

    `codec`: how they are encoded; `read_by`: whose code decodes them; `what`: the volume, for messages.
    """

    def __init__(
        self,
        section: Callable[[int], Page],
        n_sections: int,
        kind: PageKind,
        codec: str,
        read_by: str,
        what: str,
        cache_bytes: int,
    ) -> None:
        y, x = kind.shape
        page_bytes = y * x * np.dtype(kind.dtype).itemsize
        if page_bytes > metadata.MAX_OBJECT:
            raise SourceError(f"{what} has pages of {kind.shape} {kind.dtype}; at most 4 GiB can be decoded")
        self._section = lru_cache(maxsize=max(1, cache_bytes // page_bytes))(section)
        self._what = what
        self.shape: Zyx = (n_sections, y, x)
        self.dtype = kind.dtype
        self.codec = codec
        self.read_by = read_by

    @property
    def chunk_shape(self) -> Zyx:
        """A page."""
        return 1, self.shape[1], self.shape[2]

    @property
    def shard_shape(self) -> Zyx:
        """A page."""
        return self.chunk_shape

    @property
    def fill_value(self) -> int:
        """Black."""
        return 0

    def read(self, box: Box) -> Page:
        """The voxels of `box`, zyx."""
        voxels = np.empty(box.shape, self.dtype)
        _, rows, columns = box.slices
        for i, z in enumerate(range(box.start[0], box.stop[0])):
            with faults.reading(f"section {z} of {self._what}"):
                voxels[i] = self._section(z)[rows, columns]
        return voxels


def checked_channel(address: Address, channel: int | None, n_channels: int) -> int:
    """The channel to read. Raises SourceError where it must be chosen, or where there is no such one."""
    if channel is None and n_channels > 1:
        raise SourceError(
            f"{address} has {n_channels} channels; say which one: --channel 0 to {n_channels - 1}"
        )
    if channel is not None and not 0 <= channel < n_channels:
        numbers = "one channel, number 0" if n_channels == 1 else f"{n_channels} channels, from 0"
        raise SourceError(f"{address} has {numbers}; found channel {channel}")
    return channel or 0
