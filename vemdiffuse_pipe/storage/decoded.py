"""Chunks decoded in Python, behind the door of those that tensorstore decodes: with a cache, in parallel."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.storage import faults

if TYPE_CHECKING:
    import tensorstore

Index = tuple[int, ...]
ReadChunk = Callable[[Index, Index], NDArray[np.generic] | None]

_DECODED_AT_ONCE = 4


def view_of_chunks(
    read_chunk: ReadChunk,
    what: str,
    *,
    shape: Sequence[int],
    chunk: Sequence[int],
    dtype: str,
    cache_bytes: int,
    origin: Sequence[int] | None = None,
    is_fortran: bool = False,
) -> tensorstore.TensorStore:
    """An array of `shape` voxels from `origin`, cut into chunks from there.

    `read_chunk(start, stop)`: the voxels of one chunk, those beyond the end left out; None where it is
    absent, which is an error. `is_fortran`: chunks are laid out with their first axis fastest.
    """
    import tensorstore as ts

    def read(domain: tensorstore.IndexDomain, array: NDArray[np.generic], _: object) -> None:
        start, stop = tuple(domain.inclusive_min), tuple(domain.exclusive_max)
        with faults.reading(f"the chunk at {start} of {what}"):
            voxels = read_chunk(start, stop)
        if voxels is None:
            raise FileNotFoundError(errno.ENOENT, f"there is no chunk at {start}")
        array[...] = voxels

    rank, corner = len(shape), list(origin or [0] * len(shape))
    order = list(range(rank))[::-1] if is_fortran else list(range(rank))
    context = {
        "cache_pool": {"total_bytes_limit": cache_bytes},
        "data_copy_concurrency": {"limit": _DECODED_AT_ONCE},  # its own: these threads wait for the store's
    }
    view: tensorstore.TensorStore = ts.virtual_chunked(
        read,
        dtype=ts.dtype(dtype),
        domain=ts.IndexDomain(inclusive_min=corner, shape=list(shape)),
        chunk_layout=ts.ChunkLayout(read_chunk_shape=list(chunk), grid_origin=corner, inner_order=order),
        context=ts.Context(context),
    )
    return view
