"""Small objects beside the data: metadata, receipts, run files. Whole or absent, never torn, on any store."""

from __future__ import annotations

import errno
import os
import secrets
from collections import deque
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vemdiffuse_pipe.errors import MissingDataError
from vemdiffuse_pipe.storage import faults, file_systems, stores
from vemdiffuse_pipe.storage.address import Address

READ_AHEAD = 16  # objects

UNFINISHED = ".unfinished"  # how the name of a file that is not yet whole ends


def read_bytes(address: Address, at_most: int | None = None) -> bytes | None:
    """The object, or its first `at_most` bytes; None where there is none.

    Raises DataError where it is there and cannot be read; TransientError.
    """
    return read_range(address, 0, at_most)


def read_range(address: Address, start: int, stop: int | None) -> bytes | None:
    """Bytes `start` to `stop` of the object, fewer where it ends before; None where there is no object.

    A negative `start` counts from the end. Raises DataError where it is there and cannot be read;
    TransientError.
    """
    if address.is_local:
        return _read_file(address, start, stop)
    if file_systems.has(address):
        return file_systems.read(address, start, stop)
    data = _fetched(address, start, stop)
    return None if data is None or stores.is_page_of_absent(address, data) else data


def _read_file(address: Address, start: int, stop: int | None) -> bytes | None:
    try:
        with faults.reading(str(address)), address.path.open("rb") as file:
            if start:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size + start) if start < 0 else start)
            return file.read(-1 if stop is None else stop - start)
    except MissingDataError:
        return None


def write_bytes_atomically(address: Address, data: bytes) -> None:
    """Put `data` at `address`, durably: after a crash there is the old object or the new one.

    Raises OutputError, StorageFullError or TransientError.
    """
    with faults.writing(str(address)):
        if address.is_local:
            _replace_file(address.path, data)
        else:
            stores.opened(address.store).write(address.key, data).result()


def write_bytes_if_absent(address: Address, data: bytes) -> None:
    """Put `data` at `address`, durably, unless something is there, which is left alone.

    Of many that do so at once one wins. Raises OutputError, StorageFullError or TransientError.
    """
    with faults.writing(str(address)):
        if address.is_local:
            _link_file(address.path, data)
            return
        store = stores.opened(address.store)
        found = store.read(address.key).result()
        if found.state == "missing":
            store.write(address.key, data, if_equal=found.stamp.generation).result()


def read_changed(
    folder: Address, names: Sequence[str], generations: MutableMapping[str, bytes]
) -> Iterator[tuple[str, bytes]]:
    """(name, data) of the objects of a remote folder that are not what `generations` says, in that order.

    `generations`: by name, which one was read last; kept up to date. READ_AHEAD are asked for at once; what
    did not change is not sent. Raises DataError or TransientError.
    """
    store = stores.opened(folder.store)
    waiting = deque(names)
    asked: deque[tuple[str, Any]] = deque()
    while waiting or asked:
        while waiting and len(asked) < READ_AHEAD:
            name = waiting.popleft()
            known = generations.get(name)
            asked.append((name, store.read((folder / name).key, if_not_equal=known)))
        name, future = asked.popleft()
        with faults.reading(str(folder / name)):
            found = future.result()
        if found.state == "value":
            generations[name] = found.stamp.generation
            yield name, bytes(found.value)


def remove(address: Address) -> None:
    """Take the object at `address` away, if there is one. Raises OutputError or TransientError."""
    with faults.writing(str(address)):
        if address.is_local:
            address.path.unlink(missing_ok=True)
        else:
            stores.opened(address.store).write(address.key, None).result()


def list_names(address: Address) -> Iterator[str]:
    """Names of the objects and folders in a folder, in no order, unfinished ones left out.

    Constant memory on a disk; elsewhere all keys below the folder are asked for, so it is for small folders.
    Nothing where there is no such folder. Raises DataError where it cannot be read.
    """
    if file_systems.has(address):
        yield from file_systems.names(address)
        return
    if not address.is_local:
        yield from sorted({key.partition("/")[0] for key in _keys_below(address)})
        return
    try:
        with faults.reading(str(address)), os.scandir(address.path) as entries:
            yield from (entry.name for entry in entries if not entry.name.endswith(UNFINISHED))
    except MissingDataError:
        return


def _fetched(address: Address, start: int, stop: int | None) -> bytes | None:
    with faults.reading(str(address)):
        wanted = None if (start, stop) == (0, None) else slice(start, stop)
        try:
            found = stores.opened(address.store).read(address.key, byte_range=wanted).result()
        except ValueError as error:
            if not str(error).startswith("OUT_OF_RANGE") and "ignored by server" not in str(error):
                raise  # the object is shorter than the range, or the server knows no ranges
            found = stores.opened(address.store).read(address.key).result()
            return None if found.state == "missing" else bytes(found.value)[start:stop]
    return None if found.state == "missing" else bytes(found.value)


def _keys_below(address: Address) -> Iterator[str]:
    """Keys in a folder of a store, relative to it. Not every store heeds a range: what comes is checked."""
    import tensorstore as ts

    prefix = f"{address.key}/" if address.key else ""
    below = ts.KvStore.KeyRange(prefix, f"{prefix[:-1]}0" if prefix else "")  # "0" follows "/"
    with faults.reading(str(address)):
        keys = stores.opened(address.store).list(below).result()
    yield from (key.decode()[len(prefix) :] for key in keys if key.decode().startswith(prefix))


def _replace_file(path: Path, data: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}{UNFINISHED}")
    _make_folder(path.parent)
    try:
        _write_durably(unfinished, data)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _link_file(path: Path, data: bytes) -> None:
    """Unlike a replacement, a link fails where something is there: also on NFS, and for many at once."""
    if path.exists():
        return
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}{UNFINISHED}")
    _make_folder(path.parent)
    try:
        _write_durably(unfinished, data)
        with suppress(FileExistsError):
            _link(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _link(whole: Path, path: Path) -> None:
    try:
        path.hardlink_to(whole)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        whole.replace(path)  # a disk without links: the last one wins, and all write the same


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
