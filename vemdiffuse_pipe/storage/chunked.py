"""Chunked arrays through tensorstore, seen as zyx."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import CorruptDataError, SourceError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.storage import faults, stores
from vemdiffuse_pipe.storage.fill import Fill
from vemdiffuse_pipe.storage.metadata import DOUBTS, MAX_CHUNK

if TYPE_CHECKING:
    import tensorstore


def open_for_reading(spec: Mapping[str, object], what: str, cache_bytes: int) -> tensorstore.TensorStore:
    """The array that tensorstore's `spec` names, as the format orders its axes.

    Chunks are kept decoded, `cache_bytes` of them at most, and not asked for again while the array is open.
    An absent chunk is an error, never the format's fill value.
    """
    strict = {"recheck_cached_data": "open", "fill_missing_data_reads": False}
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


@dataclass(frozen=True, slots=True)
class DecodedHere:
    """How chunks are encoded that tensorstore does not decode, and whose code does."""

    codec: str
    read_by: str
    is_remote: bool


class ChunkedReader:
    """A tensorstore seen as z, y, x. `axes`: the letter of each axis in stored order, maybe too many.

    The axis c is cut at `channel`; every other axis has length 1. `decoded`: what is known of an array whose
    chunks are decoded here, None where tensorstore decodes them. `fill`: what an absent chunk stands for.
    """

    def __init__(
        self,
        array: tensorstore.TensorStore,
        axes: Sequence[str],
        what: str,
        channel: int | None = None,
        decoded: DecodedHere | None = None,
        fill: Fill | None = None,
    ) -> None:
        import tensorstore as ts

        names = list(axes)[: array.rank]
        spatial = [name for name in names if name in ("z", "y", "x")]
        first = _cut(names, array.shape, channel, what)
        self._view = array[ts.d[:].translate_to[0]][first].transpose([spatial.index(name) for name in "zyx"])
        self._what = what
        self._decoded = decoded
        self._fill = fill
        is_remote = _is_remote(array) if decoded is None else decoded.is_remote
        self._n_doubts = DOUBTS if is_remote else 0
        if prod(self.chunk_shape) * array.dtype.numpy_dtype.itemsize > MAX_CHUNK:
            raise SourceError(
                f"{what} has chunks of {self.chunk_shape} {self.dtype}; at most 512 MB can be decoded at once"
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
    def fill_value(self) -> int | float:
        """What the metadata says an absent chunk stands for, else 0.

        Raises MissingDataError where that is no value of the type.
        """
        if self._fill is not None:
            return self._fill.usable(self._what)
        value = self._view.fill_value
        return 0 if value is None else value.item()

    @property
    def codec(self) -> str:
        """How a chunk is encoded: 'jpeg', 'blosc zstd', 'raw'."""
        if self._decoded is not None:
            return self._decoded.codec
        codec = self._view.codec
        return "raw" if codec is None else _codec_name(codec.to_json())

    @property
    def read_by(self) -> str:
        """Whose code decodes a chunk."""
        return "tensorstore" if self._decoded is None else self._decoded.read_by

    def read(self, box: Box) -> NDArray[np.generic]:
        """The voxels of `box`, zyx, contiguous.

        What came over a network and cannot be decoded is asked for again before it is believed.
        """
        for _ in range(self._n_doubts):
            with suppress(CorruptDataError):
                return self._read(box)
        return self._read(box)

    def _read(self, box: Box) -> NDArray[np.generic]:
        with faults.reading(f"{box} of {self._what}"):
            voxels: NDArray[np.generic] = self._view[box.slices].read(order="C").result()
        return voxels


def _is_remote(array: tensorstore.TensorStore) -> bool:
    return bool(array.spec().to_json()["kvstore"]["driver"] != "file")


class WholeShards:
    """A tensorstore that is written in whole shards. `axes` names its axes in stored order.

    It reads a shard first if a write leaves any part of it out, and that is the part beyond the end of the
    volume too: `shape`, zyx, is that of the array as it was opened, larger than the volume where it can be.
    """

    def __init__(self, array: tensorstore.TensorStore, axes: str, shape: Zyx) -> None:
        import tensorstore as ts

        spatial = array[ts.d[:].translate_to[0]]
        spatial = spatial[..., 0] if axes.endswith("c") else spatial
        self._view = spatial.T if axes.startswith("x") else spatial
        self._box = Box.of_shape(shape)
        self._shard_shape = _zyx(self._view.chunk_layout.write_chunk.shape)

    def write(self, box: Box, voxels: NDArray[np.generic]) -> None:
        """Write `box`, which is made of whole shards; `voxels` are of its shape."""
        shape = _zyx(-(-n // s) * s for n, s in zip(box.shape, self._shard_shape, strict=True))
        whole = Box.of_shape(shape, box.start).intersect(self._box)
        if whole != box:
            padded = np.zeros(whole.shape, voxels.dtype)
            padded[Box.of_shape(voxels.shape).slices] = voxels
            voxels = padded
        self._view[whole.slices].write(voxels).result()


def _cut(
    names: Sequence[str], shape: Sequence[int], channel: int | None, what: str
) -> tuple[int | slice, ...]:
    """Where each axis is cut: space not at all, the channel at `channel`, all others at their only index."""
    cut: list[int | slice] = []
    is_channel_found = False
    for axis, (name, length) in enumerate(zip(names, shape, strict=True)):
        if name in ("z", "y", "x"):
            cut.append(slice(None))
        elif name == "c" and not is_channel_found and (length > 1 or "c" not in names[axis + 1 :]):
            is_channel_found = True
            cut.append(checked_channel(channel, length, what))
        elif length == 1:
            cut.append(0)
        else:
            raise SourceError(
                f"{what} has shape {tuple(shape)}: axis {axis} ({name}) is none of z, y, x and has length "
                f"{length}; one time point is needed"
            )
    if not is_channel_found:
        checked_channel(channel, 1, what)
    return tuple(cut)


def checked_channel(channel: int | None, n_channels: int, what: str) -> int:
    """The channel to read. Raises SourceError where there are more and none is named, or not that one."""
    if channel is None and n_channels > 1:
        raise SourceError(f"{what} has {n_channels} channels; name one: --channel 0 is the first")
    if channel is not None and not 0 <= channel < n_channels:
        raise SourceError(f"{what} has channels 0 to {n_channels - 1}; found channel {channel}")
    return channel or 0


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
