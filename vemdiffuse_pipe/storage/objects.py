"""Small objects beside the data: metadata, receipts, run files. Whole or absent, never torn."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from vemdiffuse_pipe.errors import MissingDataError
from vemdiffuse_pipe.storage import faults
from vemdiffuse_pipe.storage.address import Address

UNFINISHED = ".unfinished"  # how the name of an object that is not yet whole ends


def read_bytes(address: Address, at_most: int = -1) -> bytes | None:
    """The object, or its first `at_most` bytes; None where there is none.

    Raises DataError where it is there and cannot be read.
    """
    try:
        with faults.reading(str(address)), address.path.open("rb") as file:
            return file.read(at_most)
    except MissingDataError:
        return None


def write_bytes_atomically(address: Address, data: bytes) -> None:
    """Put `data` at `address`, durably: after a crash there is the old object or the new one.

    Raises OutputError, StorageFullError or TransientError.
    """
    path = address.path
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}{UNFINISHED}")
    with faults.writing(str(address)):
        _make_folder(path.parent)
        try:
            _write_durably(unfinished, data)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        _sync_folder(path.parent)


def list_names(address: Address) -> Iterator[str]:
    """Names of the objects and folders in a folder, in no order, unfinished ones left out.

    Constant memory. Nothing where there is no such folder. Raises DataError where it cannot be read.
    """
    try:
        with faults.reading(str(address)), os.scandir(address.path) as entries:
            yield from (entry.name for entry in entries if not entry.name.endswith(UNFINISHED))
    except MissingDataError:
        return


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _make_folder(folder: Path) -> None:
    """Make the folder and its parents, each known to its parent's disk before it is used."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
