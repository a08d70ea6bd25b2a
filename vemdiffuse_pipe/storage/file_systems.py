"""Stores that tensorstore does not reach, to read, through fsspec: each needs an optional package.

az, abfs   adlfs             credentials from AZURE_STORAGE_ACCOUNT_NAME and the others that Azure's own tools
read sftp       sshfs             keys from the agent or ~/.ssh; the host must be one of ~/.ssh/known_hosts
hf         huggingface_hub   the token of its own login

One request at a time is asked for a chunk, and none in advance. What fails comes out as the same kinds of
error as for every other store; what a library says of it is not repeated, since it may hold a signature.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from vemdiffuse_pipe.errors import AccessError, ConfigError, MissingDataError, TransientError
from vemdiffuse_pipe.storage import faults
from vemdiffuse_pipe.storage.address import Address

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_TIMEOUT_S = 30


class _Package(NamedTuple):
    """A package with a file system, our extra that installs it, and errors of its own that it raises."""

    name: str
    extra: str
    refused: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


_TIMEOUTS = ("builtins.TimeoutError", "builtins.ConnectionError")
_AZURE = _Package(
    "adlfs",
    "azure",
    refused=("azure.core.exceptions.ClientAuthenticationError",),
    absent=("azure.core.exceptions.ResourceNotFoundError",),
    others=("azure.core.exceptions.AzureError", *_TIMEOUTS),
)
_SFTP = _Package(
    "sshfs",
    "sftp",
    refused=("asyncssh.PermissionDenied", "asyncssh.HostKeyNotVerifiable", "builtins.PermissionError"),
    absent=("asyncssh.SFTPNoSuchFile", "asyncssh.SFTPNoSuchPath"),
    others=("asyncssh.Error", *_TIMEOUTS),
)
_PACKAGES = {
    "az": _AZURE,
    "abfs": _AZURE,
    "abfss": _AZURE,
    "sftp": _SFTP,
    "hf": _Package("huggingface_hub", "hf", refused=("builtins.PermissionError",), others=_TIMEOUTS),
}


def has(address: Address) -> bool:
    """True where the store of `address` is one of these."""
    return _scheme(address.store) in _PACKAGES


def read(address: Address, start: int, stop: int | None) -> bytes | None:
    """Bytes `start` to `stop` of an object, None where there is none. Raises DataError, TransientError.

    A negative `start` counts from the end. Raises ConfigError where the optional package is not installed.
    """
    system, path = opened(address.store), _path(address)
    try:
        with _reading(address):
            if start < 0:
                start = max(0, int(system.info(path)["size"]) + start)
            if _scheme(address.store) == "sftp":
                return _read_open_file(system, path, start, stop)
            data: bytes = system.cat_file(path, start or None, stop)
    except MissingDataError:
        return None
    return data


def _read_open_file(system: AbstractFileSystem, path: str, start: int, stop: int | None) -> bytes:
    """A part of a file. cat_file of sshfs 2026.8 reads files whole, whatever it is asked for."""
    with system.open(path, "rb") as file:
        file.seek(start)
        data: bytes = file.read(-1 if stop is None else stop - start)
    return data


def names(address: Address) -> Iterator[str]:
    """Names in a folder, in no order; none where there is none. Raises DataError, TransientError."""
    system = opened(address.store)
    try:
        with _reading(address):
            found = system.ls(_path(address), detail=False)
    except MissingDataError:
        return
    yield from (str(name).rstrip("/").rpartition("/")[2] for name in found)


@cache
def opened(store: str) -> AbstractFileSystem:
    """The file system of a store, kept for the life of the process.

    Raises ConfigError where its package is not installed, or does not know where credentials are.
    """
    scheme, package = _scheme(store), _PACKAGES[_scheme(store)]
    try:
        import_module(package.name)
    except ImportError:
        raise ConfigError(
            f"{store} is read through {package.name}, which is not installed: "
            f"pip install 'vemdiffuse_pipe[{package.extra}]'"
        ) from None
    import fsspec

    host = store.partition("://")[2]
    with _reading(Address(store, "")):
        try:
            return fsspec.filesystem(scheme, **_options(scheme, host))
        except ValueError as error:
            raise ConfigError(
                f"{store} cannot be reached ({type(error).__name__}); for az:// set "
                "AZURE_STORAGE_ACCOUNT_NAME or AZURE_STORAGE_CONNECTION_STRING"
            ) from None


def _options(scheme: str, host: str) -> dict[str, object]:
    """What the file system is told of its host; credentials it finds itself."""
    if scheme == "sftp":
        user, _, place = host.rpartition("@")
        name, _, port = place.partition(":")
        known_hosts: tuple[()] = ()  # those of ~/.ssh: its own default is to trust whoever answers
        who = {"username": user} if user else {}
        where = {"port": int(port)} if port else {}
        return {"host": name, "known_hosts": known_hosts, "timeout": _TIMEOUT_S, **who, **where}
    if scheme.startswith("abfs") and "@" in host:
        return {"account_name": host.rpartition("@")[2].partition(".")[0]}
    return {}


def _path(address: Address) -> str:
    """The object as its file system names it."""
    scheme, host = _scheme(address.store), address.store.partition("://")[2]
    if scheme == "hf":
        return address.key
    return f"/{address.key}" if scheme == "sftp" else f"{host.partition('@')[0]}/{address.key}"


def _scheme(store: str) -> str:
    return store.partition(":/")[0] if store else ""


@contextmanager
def _reading(address: Address) -> Iterator[None]:
    """Failures in the words of our error tree, without those of the library."""
    package = _PACKAGES[_scheme(address.store)]
    with faults.reading(str(address)):
        try:
            yield
        except package_errors(package.absent) as error:
            raise MissingDataError(f"{address} cannot be read: it is not there") from error
        except package_errors(package.refused) as error:
            raise AccessError(
                f"{address} cannot be read ({type(error).__name__}): the store does not let us in"
            ) from error
        except package_errors(package.others) as error:
            raise TransientError(f"{address} cannot be read ({type(error).__name__})") from error


@cache
def package_errors(names_of_errors: tuple[str, ...]) -> tuple[type[BaseException], ...]:
    """The classes of these names; none where their package is not installed."""
    found: list[type[BaseException]] = []
    for name in names_of_errors:
        module, _, kind = name.rpartition(".")
        with suppress(ImportError, AttributeError):
            found.append(getattr(import_module(module), kind))
    return tuple(found)
