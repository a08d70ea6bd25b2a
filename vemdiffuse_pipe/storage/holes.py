"""Missing is not black: chunks that are absent or cannot be decoded, each after its own policy.

    fail     the error is raised: the block fails, and is named                     (default)
    fill     the chunk reads as the format's fill value, and whoever asked hears of it
    bridge   the error is raised; before a run starts such sections were found and skipped

A box is read as a whole; only where that fails are its chunks read one by one.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.config import Policy
from vemdiffuse_pipe.errors import CorruptDataError, MissingDataError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.storage.levels import Reader
from vemdiffuse_pipe.volume import OnHole

N_READERS = 8


@dataclass(frozen=True, slots=True)
class Policies:
    """What becomes of a chunk that is absent, and of one that cannot be decoded."""

    missing: Policy = "fail"
    corrupt: Policy = "fail"

    def fills(self, error: MissingDataError | CorruptDataError) -> bool:
        """True where a chunk with this error reads as the fill value."""
        return (self.missing if isinstance(error, MissingDataError) else self.corrupt) == "fill"


def read(reader: Reader, box: Box, policies: Policies, on_hole: OnHole) -> NDArray[np.generic]:
    """The voxels of a box that lies inside; `on_hole` hears of each part of it that was filled.

    Raises MissingDataError or CorruptDataError where the policy is not to fill; other DataError;
    TransientError.
    """
    try:
        return reader.read(box)
    except (MissingDataError, CorruptDataError) as error:
        if not policies.fills(error):
            raise
    return _read_by_chunk(reader, box, policies, on_hole)


def _read_by_chunk(reader: Reader, box: Box, policies: Policies, on_hole: OnHole) -> NDArray[np.generic]:
    voxels = np.full(box.shape, reader.fill_value, reader.dtype)
    chunks = BlockGrid(reader.shape, reader.chunk_shape)

    def read_part(chunk: int) -> Box | None:
        part = chunks.box(chunk).intersect(box)
        try:
            voxels[part.relative_to(box.start).slices] = reader.read(part)
        except (MissingDataError, CorruptDataError) as error:
            if not policies.fills(error):
                raise
            return part
        return None

    with ThreadPoolExecutor(N_READERS) as pool:
        for hole in pool.map(read_part, chunks.touching(box)):
            if hole is not None:
                on_hole(hole)
    return voxels
