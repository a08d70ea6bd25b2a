"""Precomputed volumes that tensorstore cannot read: cloud-volume does.

Its encodings compresso and crackle, and, on a disk, chunks in compressed files with names of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import CorruptDataError, MissingDataError, SourceError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.storage import faults
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.chunked import checked_channel

if TYPE_CHECKING:
    from cloudvolume import CloudVolume


class CompressedFiles:
    """Scale `index` of the volume at `address`, zyx."""

    def __init__(self, address: Address, index: int, cache_bytes: int, channel: int | None) -> None:
        self._what = str(address)
        with faults.opening(self._what):
            self._volume = _opened(address, index, cache_bytes)
            self._channel = checked_channel(channel, int(self._volume.num_channels), self._what)
            self.shape = _zyx(self._volume.volume_size)
            self.chunk_shape = _zyx(self._volume.chunk_size)
            self.dtype = str(np.dtype(self._volume.dtype))
            self.codec = str(self._volume.encoding)

    @property
    def shard_shape(self) -> Zyx:
        """A chunk: these volumes have no shards."""
        return self.chunk_shape

    @property
    def fill_value(self) -> int:
        """Black."""
        return 0

    def read(self, box: Box) -> NDArray[np.generic]:
        """The voxels of `box`, zyx."""
        spans = zip(box.start, box.stop, _zyx(self._volume.voxel_offset), strict=True)
        z, y, x = (slice(a + offset, b + offset) for a, b, offset in spans)
        with faults.reading(f"{box} of {self._what}"), _its_own_errors(f"{box} of {self._what}"):
            voxels: NDArray[np.generic] = np.asarray(self._volume[x, y, z])[..., self._channel].T
        return voxels


def _opened(address: Address, index: int, cache_bytes: int) -> CloudVolume:
    from cloudvolume import CloudVolume, exceptions

    try:
        return CloudVolume(
            f"precomputed://{_for_cloudvolume(address)}",
            mip=index,
            fill_missing=False,
            progress=False,
            max_redirects=0,  # an `info` may send its reader anywhere
            lru_bytes=cache_bytes,
        )
    except (exceptions.InfoError, exceptions.SpecViolation, exceptions.UnsupportedFormatError) as error:
        raise SourceError(f"{address} cannot be opened: {error}") from error


def _for_cloudvolume(address: Address) -> str:
    """The address as cloud-volume reads it without credentials: buckets through their web servers."""
    scheme, _, bucket = address.store.partition("://")
    if address.is_local:
        return f"file://{address}"
    if scheme == "gs":
        return f"https://storage.googleapis.com/{bucket}/{address.key}"
    if scheme == "s3":
        return f"https://{bucket}.s3.amazonaws.com/{address.key}"
    return str(address).removeprefix("s3+")


@contextmanager
def _its_own_errors(what: str) -> Iterator[None]:
    import compresso  # type: ignore[import-not-found]
    from cloudfiles.compression import deflate  # type: ignore[import-untyped]
    from cloudfiles.exceptions import DecompressionError  # type: ignore[import-untyped]
    from cloudvolume import exceptions

    deflate_error = getattr(deflate, "DeflateError", DecompressionError)  # the codec is optional there
    undecodable = (
        exceptions.DecodingError,
        exceptions.EmptyFileException,
        DecompressionError,
        deflate_error,
        compresso.DecodeError,
    )
    try:
        yield
    except exceptions.EmptyVolumeException as error:
        raise MissingDataError(f"{what} cannot be read: {error}") from error
    except undecodable as error:
        raise CorruptDataError(f"{what} cannot be read: {error}") from error


def _zyx(xyz: Iterable[int]) -> Zyx:
    x, y, z = (int(n) for n in xyz)
    return z, y, x
