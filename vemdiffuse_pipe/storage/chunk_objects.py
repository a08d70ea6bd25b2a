"""Chunks of a precomputed volume that tensorstore cannot read, decoded here: from any store, with its cache.

Two things keep tensorstore from them: an encoding that it does not know, and names like `0-64_0-64_0-64.gz`,
under which it looks for nothing. A chunk is an object under its plain name or a compressed one, or is part
of a shard: there its name is its place on the grid, the bits of x, y and z interleaved.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import CorruptDataError, SourceError
from vemdiffuse_pipe.geometry import morton
from vemdiffuse_pipe.storage import codecs, faults, objects, stores
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.decoded import view_of_chunks

if TYPE_CHECKING:
    import tensorstore

Xyz = tuple[int, ...]
Shape = tuple[int, ...]
Fetch = Callable[[Xyz, Xyz], bytes | None]

_SLACK = 1 << 20  # bytes by which an encoding may be longer than what it encodes


@dataclass(frozen=True, slots=True)
class ChunkObjects:
    """A scale as a folder of chunks: lengths, start and voxels of a chunk are x, y, z.

    `dtype`: numpy's name. Chunks lie on a grid from `offset`; the last ones are cut at the volume's end.
    `sharding`: as the volume's `info` has it, None where it has none.
    """

    folder: Address
    encoding: str
    dtype: str
    size: Xyz
    chunk: Xyz
    offset: Xyz
    sharding: Mapping[str, object] | None

    def open(self, cache_bytes: int) -> tensorstore.TensorStore:
        """The scale with axes x, y, z and one channel. Raises SourceError for what cannot be decoded."""
        if self.encoding not in _DECODERS or (self.encoding in _IMAGES and self.dtype != "uint8"):
            raise SourceError(
                f"{self.folder} has chunks of {self.dtype} in {self.encoding}; "
                f"{', '.join(_DECODERS)} are read where chunks are decoded one by one, images as uint8"
            )
        fetch = self._from_files if self.sharding is None else self._from_shards(self.sharding)

        def read_chunk(start: Xyz, stop: Xyz) -> NDArray[np.generic] | None:
            start, stop = start[:3], stop[:3]
            data = fetch(start, stop)
            shape = tuple(b - a for a, b in zip(start, stop, strict=True))
            return None if data is None else _DECODERS[self.encoding](data, shape, self.dtype)[..., None]

        return view_of_chunks(
            read_chunk,
            str(self.folder),
            shape=(*self.size, 1),
            chunk=(*self.chunk, 1),
            dtype=self.dtype,
            cache_bytes=cache_bytes,
            origin=(*self.offset, 0),
            is_fortran=True,
        )

    def _from_files(self, start: Xyz, stop: Xyz) -> bytes | None:
        name = self.name_of(start, stop)
        n_bytes = prod(b - a for a, b in zip(start, stop, strict=True)) * np.dtype(self.dtype).itemsize
        at_most = prod(self.chunk) * np.dtype(self.dtype).itemsize + _SLACK
        for ending, decompress in _COMPRESSIONS.items():
            if (stored := objects.read_bytes(self.folder / f"{name}{ending}")) is not None:
                with faults.reading(f"{self.folder / name}{ending}"):
                    data = decompress(stored, at_most)
                    is_packed = data[:2] == codecs.GZIP and (self.encoding, len(data)) != ("raw", n_bytes)
                    return codecs.gunzip(data, at_most) if is_packed else data
        return None

    def name_of(self, start: Xyz, stop: Xyz) -> str:
        """The name of the chunk that has these voxels."""
        return "_".join(f"{a}-{b}" for a, b in zip(start, stop, strict=True))

    def _from_shards(self, sharding: Mapping[str, object]) -> Fetch:
        import tensorstore as ts

        base = stores.kvstore_of(self.folder)
        spec = {"driver": "neuroglancer_uint64_sharded", "metadata": dict(sharding), "base": base}
        with faults.opening(str(self.folder)):
            shards = ts.KvStore.open(spec, context=ts.Context(stores.retries_context())).result()

        def fetch(start: Xyz, stop: Xyz) -> bytes | None:
            x, y, z = ((a - o) // c for a, o, c in zip(start, self.offset, self.chunk, strict=True))
            nx, ny, nz = (-(-s // c) for s, c in zip(self.size, self.chunk, strict=True))
            key = morton.code_of((z, y, x), (nz, ny, nx)).to_bytes(8, "big")
            with faults.reading(f"the chunk at {start} x, y, z of {self.folder}"):
                found = shards.read(key).result()
            return None if found.state == "missing" else bytes(found.value)

        return fetch


def _unbrotli(data: bytes, at_most: int) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.brotli_decode(data, out=at_most))


def _unzstd(data: bytes, at_most: int) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.zstd_decode(data, out=at_most))


def _raw(data: bytes, shape: Shape, dtype: str) -> NDArray[np.generic]:
    return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(shape, order="F")


def _jpeg(data: bytes, shape: Shape, dtype: str) -> NDArray[np.generic]:
    import imagecodecs

    return _from_rows(imagecodecs.jpeg8_decode(data, out=_rows(shape, dtype)), shape)


def _png(data: bytes, shape: Shape, dtype: str) -> NDArray[np.generic]:
    import imagecodecs

    return _from_rows(imagecodecs.png_decode(data, out=_rows(shape, dtype)), shape)


def _rows(shape: Shape, dtype: str) -> NDArray[np.generic]:
    """An image that holds a chunk: a row of pixels for each row of its voxels."""
    x, y, z = shape
    return np.empty((z * y, x), dtype)


def _from_rows(image: NDArray[np.generic], shape: Shape) -> NDArray[np.generic]:
    return image.reshape(shape[::-1]).T


_COMPRESSO = """
import sys, numpy, resource, compresso
shape, at_most = tuple(map(int, sys.argv[1].split("x"))), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (at_most, at_most))
data = sys.stdin.buffer.read()
header = compresso.header(data)
assert (header["sx"], header["sy"], header["sz"]) == shape
sys.stdout.buffer.write(compresso.decompress(data).astype(sys.argv[3]).tobytes("F"))
"""


def _compresso(data: bytes, shape: Shape, dtype: str) -> NDArray[np.generic]:
    """In a process of its own: compresso 3.3 writes past its memory where a chunk is damaged."""
    little = np.dtype(dtype).newbyteorder("<")
    at_most = 4 * prod(shape) * little.itemsize + (1 << 30)
    arguments = ["x".join(map(str, shape)), str(at_most), little.str]
    command = [sys.executable, "-P", "-c", _COMPRESSO, *arguments]
    done = subprocess.run(command, input=data, capture_output=True, check=False)  # noqa: S603
    if done.returncode or len(done.stdout) != prod(shape) * little.itemsize:
        raise CorruptDataError(f"{len(data)} bytes do not decode as a compresso chunk of {shape} voxels")
    return _raw(done.stdout, shape, dtype)


_COMPRESSIONS: Mapping[str, Callable[[bytes, int], bytes]] = {
    "": lambda data, at_most: data,
    ".gz": codecs.gunzip,
    ".br": _unbrotli,
    ".zstd": _unzstd,
}
COMPRESSED_NAMES = tuple(ending for ending in _COMPRESSIONS if ending)

_DECODERS: Mapping[str, Callable[[bytes, Shape, str], NDArray[np.generic]]] = {
    "raw": _raw,
    "jpeg": _jpeg,
    "png": _png,
    "compresso": _compresso,
}
_IMAGES = ("jpeg", "png")
