"""Codecs of zarr, version 2 and 3: the known ones, with the keys that decoding depends on and no others.

tensorstore decodes some, all others are decoded here: bytes by codecs.py, numbers by zarr-python with what
numcodecs registers there. A codec that is in neither list is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.storage import codecs, metadata

Codec = dict[str, Any]

ARRAY_CODECS = (
    "astype",
    "bitround",
    "delta",
    "fixedscaleoffset",
    "packbits",
    "quantize",
)  # numbers to numbers
_BY_TENSORSTORE_2 = ("blosc", "bz2", "gzip", "zlib", "zstd")
_BY_TENSORSTORE_3 = ("blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "zstd")
_PREFIX = "numcodecs."
_BLOSC = {"cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}  # no matter: a chunk says itself
_SHUFFLES = ("noshuffle", "shuffle", "bitshuffle")
_NAMES_OF_BLOSC = ("blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd")


def restated_compressor(value: object, where: str) -> tuple[Codec | None, bool]:
    """The compressor of version 2, and whether tensorstore has it. Raises SourceError for an unknown one."""
    if value is None:
        return None, True
    found = metadata.mapping(value, f"{where}: compressor")
    name = found.get("id")
    if name == "blosc":
        return {"id": "blosc", **_BLOSC, "cname": _blosc_name(found)}, True
    if name in _BY_TENSORSTORE_2:
        return {"id": name, "level": 1}, True
    return _known(found, "compressor", where), False


def restated_filters(value: object, where: str) -> list[Codec] | None:
    """The filters of version 2, None where there are none. Raises SourceError for an unknown one."""
    if not value:
        return None
    found = [
        metadata.mapping(one, f"{where}: filters") for one in metadata.items(value, f"{where}: filters", 8)
    ]
    return [_known(one, "filter", where) for one in found]


def restated_codecs(value: object, where: str, dtype: str, rank: int) -> tuple[list[Codec], bool]:
    """The codecs of version 3, and whether tensorstore has all of them. Raises SourceError."""
    listed = [value] if isinstance(value, str) else metadata.items(value, where, 16)
    restated = [_restated_3(one, where, dtype, rank) for one in listed]
    inner = [one["configuration"] for one in restated if one["name"] == "sharding_indexed"]
    names = [one["name"] for many in (restated, *(c["codecs"] for c in inner)) for one in many]
    return restated, all(name in _BY_TENSORSTORE_3 for name in names)


def _restated_3(value: object, where: str, dtype: str, rank: int) -> Codec:
    found = {"name": value} if isinstance(value, str) else metadata.mapping(value, where)
    name, stated = found.get("name"), found.get("configuration") or {}
    configuration = metadata.mapping(stated, where)
    match name:
        case "bytes" | "endian":
            endian = configuration.get("endian", "little")
            return {"name": "bytes", "configuration": {"endian": "big" if endian == "big" else "little"}}
        case "crc32c":
            return {"name": name}
        case "gzip" | "zstd":
            return {"name": name, "configuration": {"level": 1}}
        case "blosc":
            return {"name": name, "configuration": _blosc_3(configuration)}
        case "transpose":
            return {"name": name, "configuration": {"order": _order(configuration.get("order"), where, rank)}}
        case "sharding_indexed":
            return {"name": name, "configuration": _sharding(configuration, where, dtype, rank)}
        case str() if name.startswith(_PREFIX):
            known = _known({**configuration, "id": name.removeprefix(_PREFIX)}, "codec", where)
            return {"name": name, "configuration": {k: v for k, v in known.items() if k != "id"}}
    raise SourceError(
        f"{where}: found {name!r:.60}; {metadata.listed(_BY_TENSORSTORE_3)} and numcodecs' are read"
    )


def _sharding(configuration: Mapping[str, object], where: str, dtype: str, rank: int) -> Codec:
    chunk = metadata.chunk_shape(configuration.get("chunk_shape"), f"{where}: chunk_shape", rank)
    index = configuration.get("index_codecs", ["bytes", "crc32c"])
    location = configuration.get("index_location", "end")
    if location not in ("start", "end"):
        raise SourceError(f"{where}: index_location is {location!r:.40}; start or end is needed")
    return {
        "chunk_shape": list(chunk),
        "codecs": restated_codecs(configuration.get("codecs"), where, dtype, rank)[0],
        "index_codecs": restated_codecs(index, where, "uint64", rank + 1)[0],
        "index_location": location,
    }


def _order(value: object, where: str, rank: int) -> list[int]:
    """A permutation of the axes; a draft of version 3 wrote C and F."""
    if value in ("C", "F"):
        return list(range(rank)) if value == "C" else list(range(rank))[::-1]
    order = metadata.integers(value, f"{where}: order", rank)
    if sorted(order) != list(range(rank)):
        raise SourceError(f"{where}: order is {list(order)}; each axis is needed once")
    return list(order)


def _blosc_3(configuration: Mapping[str, object]) -> Codec:
    return {**_BLOSC, "cname": _blosc_name(configuration), "shuffle": _SHUFFLES[0], "typesize": 1}


def _blosc_name(found: Mapping[str, object]) -> str:
    name = found.get("cname")
    return str(name) if name in _NAMES_OF_BLOSC else "lz4"


def _known(found: Mapping[str, object], kind: str, where: str) -> Codec:
    """A codec of numcodecs that is decoded here, its values checked. Raises SourceError for any other."""
    name = found.get("id")
    known = (*codecs.DECODERS, *ARRAY_CODECS, "pcodec")
    if name not in known:
        raise SourceError(f"{where}: {kind} is {name!r:.40}; {', '.join(sorted(known))} are read")
    if name == "pcodec":
        return {"id": name}
    if name == "lzma" and found.get("format", 1) not in (1, 2):
        raise SourceError(f"{where}: lzma without a header is not read; format 1 or 2 is needed")
    return {key: _plain(value, f"{where}: {kind} {name}, {key:.40}") for key, value in found.items()}


def _plain(value: object, where: str) -> object:
    """A value that a codec takes: a number, a word, the name of a type of numbers, or none."""
    is_number = isinstance(value, bool | int | float) and abs(value) < 1 << 63
    is_word = isinstance(value, str) and re.fullmatch(r"[<>|=]?[a-z][a-z0-9_]{0,15}|start|end", value)
    if value is None or is_number or (is_word and value not in ("object", "o", "|o", "O")):
        return value
    if isinstance(value, Sequence) and not value:
        return value
    raise SourceError(f"{where}: found {value!r:.40}; a number or the name of a type is needed")
