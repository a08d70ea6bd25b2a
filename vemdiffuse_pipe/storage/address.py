"""Where a volume is. Parsed once, so that no driver handles a URL, and a new kind of store is added here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vemdiffuse_pipe.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Address:
    """A folder or an object of a store: the local disk, for now. `path` is absolute."""

    path: Path

    def __truediv__(self, key: str) -> Address:
        return Address(self.path / key)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.name

    @property
    def kvstore(self) -> dict[str, object]:
        """The folder as tensorstore names it."""
        return {"driver": "file", "path": f"{self.path}/"}


def parse_address(url: str | os.PathLike[str]) -> Address:
    """The address of a local path or a file:// URL. Raises ConfigError for anything else."""
    text = os.fspath(url)
    if not text or not text.isprintable():
        raise ConfigError(f"{text!r} is not an address; give a local path or a file:// URL")
    if "://" not in text:
        return Address(_absolute(text))
    parts = urlsplit(text)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise ConfigError(
            f"{text}: only local paths and file:// URLs are read so far; copy the volume to a disk"
        )
    return Address(_absolute(unquote(parts.path)))


def _absolute(path: str) -> Path:
    """The path from the root, without `..`: tensorstore takes none with it."""
    absolute = Path(os.path.expanduser(path)).absolute()  # noqa: PTH111 (Path's own raises for ~nobody)
    return Path(os.path.realpath(absolute)) if ".." in absolute.parts else absolute
