"""What a library or the operating system says, in the words of our error tree.

with reading("[0:4, 0:8, 0:8] of /data/em.zarr"):
    return view[slices].read().result()

said                                          opening         reading             writing
not found                                     SourceError     MissingDataError    OutputError
failed to decode: truncated, garbage          SourceError     CorruptDataError    TransientError
permission, read-only, a folder where a file  SourceError     AccessError         OutputError
no space, quota, file too large               -               -                   StorageFullError
input/output error, timeout, unavailable      TransientError  TransientError      TransientError
HTTP 404, 410                                 SourceError     MissingDataError    OutputError
HTTP 408, 409, 425, 429, 500 and above        TransientError  TransientError      TransientError
HTTP 416: shorter than it says that it is     SourceError     CorruptDataError    TransientError
any other HTTP code                           SourceError     AccessError         OutputError
"""

from __future__ import annotations

import errno
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum, auto

from vemdiffuse_pipe.errors import (
    AccessError,
    CorruptDataError,
    DataError,
    MissingDataError,
    OutputError,
    SourceError,
    StorageFullError,
    TransientError,
    VemdiffuseError,
)


class _Kind(Enum):
    ABSENT = auto()
    CORRUPT = auto()
    REFUSED = auto()
    FULL = auto()
    TRANSIENT = auto()


_OPENING: Mapping[_Kind, type[VemdiffuseError]] = {
    _Kind.ABSENT: SourceError,
    _Kind.CORRUPT: SourceError,
    _Kind.REFUSED: SourceError,
    _Kind.FULL: SourceError,
    _Kind.TRANSIENT: TransientError,
}
_READING: Mapping[_Kind, type[VemdiffuseError]] = {
    _Kind.ABSENT: MissingDataError,
    _Kind.CORRUPT: CorruptDataError,
    _Kind.REFUSED: AccessError,
    _Kind.FULL: DataError,
    _Kind.TRANSIENT: TransientError,
}
_WRITING: Mapping[_Kind, type[VemdiffuseError]] = {
    _Kind.ABSENT: OutputError,
    _Kind.CORRUPT: TransientError,
    _Kind.REFUSED: OutputError,
    _Kind.FULL: StorageFullError,
    _Kind.TRANSIENT: TransientError,
}

_ERRNO: Mapping[int, _Kind] = {
    errno.ENOENT: _Kind.ABSENT,
    errno.ENOTDIR: _Kind.ABSENT,
    errno.EINVAL: _Kind.CORRUPT,
    errno.EACCES: _Kind.REFUSED,
    errno.EPERM: _Kind.REFUSED,
    errno.EROFS: _Kind.REFUSED,
    errno.EISDIR: _Kind.REFUSED,
    errno.EEXIST: _Kind.REFUSED,
    errno.ENAMETOOLONG: _Kind.REFUSED,
    errno.ELOOP: _Kind.REFUSED,
    errno.ENOSPC: _Kind.FULL,
    errno.EDQUOT: _Kind.FULL,
    errno.EFBIG: _Kind.FULL,
}
_STATUS: Mapping[str, _Kind] = {
    "NOT_FOUND": _Kind.ABSENT,
    "PERMISSION_DENIED": _Kind.REFUSED,
    "UNAUTHENTICATED": _Kind.REFUSED,
    "RESOURCE_EXHAUSTED": _Kind.TRANSIENT,
    "UNAVAILABLE": _Kind.TRANSIENT,
    "DEADLINE_EXCEEDED": _Kind.TRANSIENT,
    "ABORTED": _Kind.TRANSIENT,
    "CANCELLED": _Kind.TRANSIENT,
    "UNKNOWN": _Kind.TRANSIENT,
    "INTERNAL": _Kind.TRANSIENT,
}
_HTTP: Mapping[int, _Kind] = {
    404: _Kind.ABSENT,
    410: _Kind.ABSENT,
    416: _Kind.CORRUPT,
    **dict.fromkeys((408, 409, 425, 429, *range(500, 1000)), _Kind.TRANSIENT),
}
_HTTP_CODE = re.compile(r"\[(?:HTTP code |http_response_code=')(\d{3})'?\]")

_ADVICE: Mapping[type[VemdiffuseError], str] = {
    StorageFullError: "; no room is left there: make some, and rerun to resume"
}

# What tensorstore, tifffile, the image codecs and cloud-volume raise for what they were given.
_RAISED = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    EOFError,
    struct.error,
    zlib.error,
)


@contextmanager
def opening(what: str) -> Iterator[None]:
    """Failures to open `what` as SourceError or TransientError."""
    with _translated(_OPENING, f"{what} cannot be opened"):
        yield


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Failures to read `what` as a DataError or TransientError."""
    with _translated(_READING, f"{what} cannot be read"):
        yield


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Failures to write `what` as OutputError, StorageFullError or TransientError."""
    with _translated(_WRITING, f"{what} cannot be written"):
        yield


@contextmanager
def _translated(tree: Mapping[_Kind, type[VemdiffuseError]], sentence: str) -> Iterator[None]:
    try:
        yield
    except _RAISED as error:
        kind = _kind(error)
        raise tree[kind](f"{sentence}: {_said(error)}{_ADVICE.get(tree[kind], '')}") from error


def _kind(error: Exception) -> _Kind:
    if isinstance(error, OSError) and error.errno is not None:
        return _ERRNO.get(error.errno, _Kind.TRANSIENT)
    if code := re.search(r"\[os_error_code='(\d+)'\]", str(error)):
        return _ERRNO.get(int(code[1]), _Kind.TRANSIENT)
    if http := _HTTP_CODE.search(str(error)):
        return _HTTP.get(int(http[1]), _Kind.REFUSED)
    status = re.match(r"([A-Z_]+): ", str(error))
    return _STATUS.get(status[1], _Kind.CORRUPT) if status else _Kind.CORRUPT


def _said(error: Exception) -> str:
    """The first line, without the name of the status and the settings that tensorstore repeats."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = _HTTP_CODE.sub(r"(HTTP \1)", str(error))
    text = re.sub(r"^[A-Z_]+: |\s*\[[a-z_ ]+='.*", "", text, flags=re.DOTALL).strip()
    first, *_ = text.splitlines() or [type(error).__name__]
    return first if len(first) <= 300 else f"{first[:300]} ..."
