"""Precomputed volumes on a disk in compressed files: cloud-volume reads what tensorstore cannot see."""

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
from vemdiffuse_pipe.storage.levels import Missing

if TYPE_CHECKING:
    from cloudvolume import CloudVolume


class CompressedFiles:
    """Scale `index` of the volume at `address`, zyx."""

    def __init__(self, address: Address, index: int, cache_bytes: int, missing: Missing) -> None:
        self._what = str(address)
        with faults.opening(self._what):
            self._volume = _opened(address, index, cache_bytes, missing)
            self.shape = _zyx(self._volume.volume_size)
            self.chunk_shape = _zyx(self._volume.chunk_size)
            self.dtype = str(np.dtype(self._volume.dtype))
            self.codec = str(self._volume.encoding)

    @property
    def shard_shape(self) -> Zyx:
        """A chunk: these volumes have no shards."""
        return self.chunk_shape

    def read(self, box: Box) -> NDArray[np.generic]:
        """The voxels of `box`, zyx."""
        spans = zip(box.start, box.stop, _zyx(self._volume.voxel_offset), strict=True)
        z, y, x = (slice(a + offset, b + offset) for a, b, offset in spans)
        with faults.reading(f"{box} of {self._what}"), _its_own_errors(f"{box} of {self._what}"):
            voxels: NDArray[np.generic] = np.asarray(self._volume[x, y, z])[..., 0].T
        return voxels


def _opened(address: Address, index: int, cache_bytes: int, missing: Missing) -> CloudVolume:
    from cloudvolume import CloudVolume, exceptions

    try:
        return CloudVolume(
            f"precomputed://file://{address}",
            mip=index,
            fill_missing=missing == "fill",
            progress=False,
            max_redirects=0,  # an `info` may send its reader anywhere
            lru_bytes=cache_bytes,
        )
    except (exceptions.InfoError, exceptions.SpecViolation, exceptions.UnsupportedFormatError) as error:
        raise SourceError(f"{address} cannot be opened: {error}") from error


@contextmanager
def _its_own_errors(what: str) -> Iterator[None]:
    from cloudfiles.compression import deflate  # type: ignore[import-untyped]
    from cloudfiles.exceptions import DecompressionError  # type: ignore[import-untyped]
    from cloudvolume import exceptions

    deflate_error = getattr(deflate, "DeflateError", DecompressionError)  # the codec is optional there
    undecodable = (exceptions.DecodingError, exceptions.EmptyFileException, DecompressionError, deflate_error)
    try:
        yield
    except exceptions.EmptyVolumeException as error:
        raise MissingDataError(f"{what} cannot be read: {error}") from error
    except undecodable as error:
        raise CorruptDataError(f"{what} cannot be read: {error}") from error


def _zyx(xyz: Iterable[int]) -> Zyx:
    x, y, z = (int(n) for n in xyz)
    return z, y, x
