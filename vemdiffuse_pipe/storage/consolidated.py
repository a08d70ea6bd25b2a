"""Documents of zarr that were gathered into one: the only ones there are, where no others were copied.

version 2    GROUP/.zmetadata    {"metadata": {".zattrs": ..., "0/.zarray": ...}}
version 3    GROUP/zarr.json     {"consolidated_metadata": {"metadata": {"0": ...}}}

A document that an array or a group has of its own comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.storage import metadata
from vemdiffuse_pipe.storage.address import Address

Documents = Mapping[str, Mapping[str, object]]

_FOLDERS_UP = 3  # how far above an array its group's document is looked for


def around(address: Address) -> Documents:
    """What is known of `address` and what is in it, by key: from its own group, or from one further up."""
    inside = ""
    for _ in range(_FOLDERS_UP + 1):
        with suppress(SourceError):  # of a folder that may have nothing to do with it
            documents = of_version_2(address) or of_version_3(
                metadata.read_document(address / "zarr.json") or {}
            )
            if found := below(documents, inside) if inside else documents:
                return found
        if not address.name:
            break
        inside, address = f"{address.name}/{inside}".rstrip("/"), address.parent
    return {}


def of_version_2(address: Address) -> Documents:
    """What the `.zmetadata` of a group holds, by key; nothing where there is none."""
    gathered = metadata.read_document(address / ".zmetadata")
    return _documents(None if gathered is None else gathered.get("metadata"))


def of_version_3(document: Mapping[str, object]) -> Documents:
    """What a group's `zarr.json` holds of what is in it, by key: its paths name nodes."""
    gathered = document.get("consolidated_metadata")
    nodes = _documents(gathered.get("metadata") if isinstance(gathered, dict) else None)
    return {f"{path}/zarr.json": node for path, node in nodes.items()}


def below(documents: Documents, path: str) -> Documents:
    """The documents of one folder, by their keys in it."""
    return {key.removeprefix(f"{path}/"): one for key, one in documents.items() if key.startswith(f"{path}/")}


def _documents(value: object) -> Documents:
    found = value if isinstance(value, dict) else {}
    return {key.strip("/"): document for key, document in found.items() if isinstance(document, dict)}
