"""Compressed bytes decoded here, where tensorstore does not: none becomes longer than it is allowed to.

What decodes to more than it should is damaged, or meant to exhaust the memory of whoever reads it. A codec is
a mapping as zarr 2 states it, {"id": "lz4", ...}. Only those listed here are known: numcodecs' pickle is not.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from vemdiffuse_pipe.errors import CorruptDataError

Config = Mapping[str, Any]

GZIP = b"\x1f\x8b"  # how every gzip stream begins

_MAX_DICTIONARY = 256 << 20  # bytes that lzma may ask for


def decode(codec: Config, data: bytes, at_most: int) -> bytes:
    """The bytes that `codec` made `data` of, at most `at_most`.

    Raises CorruptDataError, and what the codec's library raises, for damaged data.
    """
    return DECODERS[codec["id"]](codec, data, at_most)


def gunzip(data: bytes, at_most: int, *, cut: bool = False) -> bytes:
    """What a gzip stream holds. Beyond `at_most` bytes CorruptDataError is raised, or with `cut` left out."""
    stream = zlib.decompressobj(wbits=31)
    decoded = stream.decompress(data, at_most)
    if not stream.eof and not (cut and len(decoded) == at_most):
        raise CorruptDataError(f"a gzip stream ends early, or holds more than {at_most} bytes")
    return decoded


class _Stream(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def _whole(name: str, stream: _Stream, data: bytes, at_most: int) -> bytes:
    """All that a stream of the standard library decodes to."""
    try:
        decoded = stream.decompress(data, at_most + 1)
    except (lzma.LZMAError, OSError) as error:
        raise CorruptDataError(f"{len(data)} bytes are no {name} stream: {error}") from error
    if not stream.eof or len(decoded) > at_most:
        raise CorruptDataError(f"a {name} stream ends early, or holds more than {at_most} bytes")
    return decoded


def _zlib(codec: Config, data: bytes, at_most: int) -> bytes:
    stream = zlib.decompressobj()
    decoded = stream.decompress(data, at_most)
    if not stream.eof:
        raise CorruptDataError(f"a zlib stream ends early, or holds more than {at_most} bytes")
    return decoded


def _bz2(codec: Config, data: bytes, at_most: int) -> bytes:
    return _whole("bz2", bz2.BZ2Decompressor(), data, at_most)


def _lzma(codec: Config, data: bytes, at_most: int) -> bytes:
    return _whole("lzma", lzma.LZMADecompressor(lzma.FORMAT_AUTO, _MAX_DICTIONARY), data, at_most)


def _lz4(codec: Config, data: bytes, at_most: int) -> bytes:
    from numcodecs import lz4

    _check_length("lz4", int.from_bytes(data[:4], "little"), at_most)
    return bytes(lz4.decompress(data))


def _zstd(codec: Config, data: bytes, at_most: int) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.zstd_decode(data, out=at_most))


def _blosc(codec: Config, data: bytes, at_most: int) -> bytes:
    from numcodecs import blosc

    _check_length("blosc", int.from_bytes(data[4:8], "little"), at_most)
    if int.from_bytes(data[12:16], "little") != len(data):
        raise CorruptDataError(f"a blosc chunk of {len(data)} bytes says that it has another length")
    return bytes(blosc.decompress(data))


def _of_same_length(codec: Config, data: bytes, at_most: int) -> bytes:
    """Codecs of numcodecs that only order bytes, or append a checksum."""
    import numcodecs

    decoded: bytes = numcodecs.get_codec(dict(codec)).decode(data)
    return bytes(decoded)


def _check_length(name: str, length: int, at_most: int) -> None:
    if length > at_most:
        raise CorruptDataError(f"a {name} chunk says that it holds {length} bytes; at most {at_most} fit")


DECODERS: Mapping[str, Callable[[Config, bytes, int], bytes]] = {
    "zlib": _zlib,
    "gzip": lambda codec, data, at_most: gunzip(data, at_most),
    "bz2": _bz2,
    "lzma": _lzma,
    "lz4": _lz4,
    "zstd": _zstd,
    "blosc": _blosc,
    **dict.fromkeys(
        ("shuffle", "crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3"), _of_same_length
    ),
}
