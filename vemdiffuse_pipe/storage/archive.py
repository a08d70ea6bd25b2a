"""Volumes inside zip archives: .ozx and .zarr.zip, read where they are, a chunk at a time.

On the disk any file that begins as zip does is one, whatever its name; elsewhere the name says it. The volume
is at the top of the archive, or in the only folder there.
"""

from __future__ import annotations

from vemdiffuse_pipe.errors import DataError, SourceError
from vemdiffuse_pipe.storage import objects, stores
from vemdiffuse_pipe.storage.address import Address

_ENDINGS = (".zip", ".ozx")
_MAGIC = (b"PK\3\4", b"PK\5\6")


def entered(address: Address) -> Address:
    """`address`, or what it means inside the archive that it leads to or into. Raises SourceError."""
    found = _archive_in(address)
    if found is None or not stores.is_for_tensorstore(found):
        return address
    try:
        only_folder = _only_folder(found.inside(""))
    except DataError as error:
        raise SourceError(f"{error}; the archive is damaged or was not copied to its end") from error
    key = str(address)[len(str(found)) :].strip("/")
    return found.inside(key or only_folder)


def _archive_in(address: Address) -> Address | None:
    """The archive that is at `address` or above it."""
    place = address
    while place.name and place.parent != place:
        is_possible = place.is_local or place.name.lower().endswith(_ENDINGS)
        if is_possible and _is_archive(place):
            return place
        if place.is_local and place.path.is_dir():
            return None
        place = place.parent
    return None


def _is_archive(place: Address) -> bool:
    if place.is_local and not place.path.is_file():
        return False
    return objects.read_bytes(place, 4) in _MAGIC


def _only_folder(top: Address) -> str:
    """The folder that holds all there is; '' where more is at the top."""
    names = [name for name in objects.list_names(top) if not name.startswith((".", "__"))]
    is_folder = len(names) == 1 and next(iter(objects.list_names(top / names[0])), None) is not None
    return names[0] if is_folder else ""
