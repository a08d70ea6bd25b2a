"""Chunked arrays through tensorstore, seen as zyx."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.storage import faults, stores
from vemdiffuse_pipe.storage.levels import Missing
from vemdiffuse_pipe.storage.metadata import LARGEST_CHUNK

if TYPE_CHECKING:
    import tensorstore


def open_for_reading(
    spec: Mapping[str, object], what: str, cache_bytes: int, missing: Missing
) -> tensorstore.TensorStore:
    """The array that tensorstore's `spec` names, as the format orders its axes.

    Chunks are kept decoded, `cache_bytes` of them at most, and not asked for again while the array is open.
    An absent chunk is an error, or the format's fill value where `missing` is "fill".
    """
    strict = {"recheck_cached_data": "open", "fill_missing_data_reads": missing == "fill"}
    context = {"cache_pool": {"total_bytes_limit": cache_bytes}, **stores.retries_context()}
    return _opened({**spec, **strict}, context, what)


def open_for_writing(spec: Mapping[str, object], what: str) -> tensorstore.TensorStore:
    """The array that tensorstore's `spec` names, for writing whole shards.

    A shard of zeros is stored like any other, so that an absent one was never written. Each write goes to a
    file of its own, which then takes the shard's name: with tensorstore's locks (0.1.86) a lock file that a
    killed writer left behind is written over but not cut, and what is too long of it ends up in the shard.
    """
    as_written = {"store_data_equal_to_fill_value": True}
    context = {"file_io_locking": {"mode": "none"}, **stores.retries_context()}
    return _opened({**spec, **as_written}, context, what)


def _opened(spec: Mapping[str, object], context: Mapping[str, object], what: str) -> tensorstore.TensorStore:
    import tensorstore as ts

    with faults.opening(what):
        return ts.open(dict(spec), context=ts.Context(dict(context))).result()


class ChunkedReader:
    """A tensorstore whose axes `zyx` are z, y and x; every other axis has length 1."""

    def __init__(self, array: tensorstore.TensorStore, zyx: Zyx, what: str) -> None:
        import tensorstore as ts

        others = [axis for axis in range(array.rank) if axis not in zyx]
        for axis in others:
            if array.shape[axis] != 1:
                raise SourceError(
                    f"{what} has shape {array.shape}: axis {axis} is none of z, y, x and has length "
                    f"{array.shape[axis]}; one channel at one time is needed"
                )
        first = tuple(0 if axis in others else slice(None) for axis in range(array.rank))
        self._view = array[ts.d[:].translate_to[0]][first].transpose(
            [sorted(zyx).index(axis) for axis in zyx]
        )
        self._what = what
        if prod(self.chunk_shape) * array.dtype.numpy_dtype.itemsize > LARGEST_CHUNK:
            raise SourceError(
                f"{what} has chunks of {self.chunk_shape} {self.dtype}; at most 4 GiB can be decoded"
            )

    @property
    def shape(self) -> Zyx:
        """Voxels, zyx."""
        return _zyx(self._view.shape)

    @property
    def chunk_shape(self) -> Zyx:
        """What is decoded at once."""
        return _zyx(self._view.chunk_layout.read_chunk.shape)

    @property
    def shard_shape(self) -> Zyx:
        """What is written at once."""
        return _zyx(self._view.chunk_layout.write_chunk.shape)

    @property
    def dtype(self) -> str:
        """Numpy's name of the stored type."""
        return self._view.dtype.name

    @property
    def codec(self) -> str:
        """How a chunk is encoded: 'jpeg', 'blosc zstd', 'raw'."""
        codec = self._view.codec
        return "raw" if codec is None else _codec_name(codec.to_json())

    def read(self, box: Box) -> NDArray[np.generic]:
        """The voxels of `box`, zyx, contiguous."""
        with faults.reading(f"{box} of {self._what}"):
            voxels: NDArray[np.generic] = self._view[box.slices].read(order="C").result()
        return voxels


def _zyx(shape: Iterable[int | None] | None) -> Zyx:
    z, y, x = (n or 1 for n in shape or (1, 1, 1))  # every driver here states all three
    return z, y, x


def _codec_name(codec: Mapping[str, Any]) -> str:
    """What each driver of tensorstore calls it, in a word or two; what only orders bytes is left out."""
    match codec:
        case {"encoding": str(encoding), "shard_data_encoding": "gzip"}:
            return f"{encoding} gzip"
        case {"encoding": str(name)} | {"compression": {"type": str(name)}} if name != "blosc":
            return name
        case {"compression": {"cname": str(name)}} | {"compressor": {"cname": str(name)}}:
            return f"blosc {name}"
        case {"compressor": {"id": str(name)}}:
            return name
        case {"codecs": [*_, {"configuration": {"codecs": inner}}]}:
            return _codec_name({"codecs": inner})
        case {"codecs": [*codecs]}:
            return " ".join(name for one in codecs for name in _zarr_3_names(one)) or "raw"
    return "raw"


def _zarr_3_names(codec: Mapping[str, Any]) -> Iterable[str]:
    if codec["name"] in ("bytes", "transpose", "crc32c"):
        return []
    return [codec["name"], *(name for key, name in codec.get("configuration", {}).items() if key == "cname")]
