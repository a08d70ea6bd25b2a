"""TIFF: a file with a page for each section and channel, a set of OME-TIFF files, or a folder of sections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.geometry.frame import Nm
from vemdiffuse_pipe.storage import faults, objects, ome_tiff, ome_xml, tiff_axes
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.levels import Level, Volume
from vemdiffuse_pipe.storage.section_names import in_order
from vemdiffuse_pipe.storage.tiff_header import count_pages, is_tiff
from vemdiffuse_pipe.storage.tiff_pages import Stack, opened
from vemdiffuse_pipe.storage.tiff_size import imagej_size_nm

_SUFFIXES = (".tif", ".tiff")
_COMPANIONS = (".companion.ome", ".ome.xml")  # the metadata of a set of OME-TIFF files, in a file of its own


def find(address: Address, series: int | None = None, pattern: str | None = None) -> Volume | None:
    """The stack at `address`; None where there is none. Raises SourceError.

    `series`: which image of a file with more, from 0. `pattern`: which files of a folder are its sections.
    """
    if not address.is_local:
        return None
    if address.path.is_dir():
        if series is not None:
            raise SourceError(f"{address} is a folder, which has no series; leave it out")
        return _folder(address, pattern)
    if pattern is not None:
        raise SourceError(f"{address} is no folder; a pattern of names is of folders: leave it out")
    if is_tiff(address):
        return _file(address, series)
    if address.name.endswith(_COMPANIONS) and address.path.is_file():
        text = (objects.read_bytes(address, ome_xml.MAX_CHARACTERS + 1) or b"").decode(errors="replace")
        return _ome(address, text, series)
    return None


def _file(address: Address, series: int | None) -> Volume:
    n_pages = count_pages(address)
    with faults.opening(str(address)), opened(address) as file:
        description = str(file.pages.first.description or "")
        if ome_xml.is_ome(description):
            return _ome(address, description, series)
        stack = tiff_axes.stack_of(file, n_pages, address, series)
        return _volume(address, stack, imagej_size_nm(file))


def _ome(address: Address, description: str, series: int | None) -> Volume:
    document = ome_tiff.read_document(address, description)
    stack, image = ome_tiff.stack_of(address, document, series)
    return _volume(address, stack, image.size_nm)


def _folder(address: Address, pattern: str | None) -> Volume | None:
    """The sections of a folder: hidden files, which systems leave beside others, are none."""
    names = [name for name in objects.list_names(address) if _is_section(name)]
    if not names:
        return None
    if len(names) < 2:
        raise SourceError(
            f"{address} holds one TIFF file; give the address of a stack, or a folder of sections"
        )
    return _volume(address, *_sections(address, sorted(names), pattern))


def _is_section(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES) and not name.startswith(".")


def _sections(address: Address, names: Sequence[str], pattern: str | None) -> tuple[Stack, Nm | None]:
    numbering = in_order(address, names, pattern)
    files = [name for name in numbering.files if name is not None]
    first = address / files[0]
    if not is_tiff(first):
        raise SourceError(f"{first} is no TIFF file, whatever its name; take it out")
    if count_pages(first) != 1:
        raise SourceError(f"{first} has more than one page; give its address, or a folder of single sections")
    is_there = np.array([name is not None for name in numbering.files])
    index = np.where(is_there, np.cumsum(is_there) - 1, -1)
    places = np.stack([index, np.where(is_there, 0, -1)], axis=-1)[None]
    with faults.opening(str(first)), opened(first) as file:
        size = _size_nm(str(file.pages.first.description or ""), first) or imagej_size_nm(file)
    return Stack(address, address, files, places, numbering=numbering), size


def _size_nm(description: str, address: Address) -> Nm | None:
    images = ome_xml.parse(description, str(address)).images if ome_xml.is_ome(description) else []
    return images[0].size_nm if images else None


def _volume(address: Address, stack: Stack, size_nm: Nm | None) -> Volume:
    level = Level("0", stack) if size_nm is None else Level("0", stack, size_nm, is_in_nm=True)
    return Volume(str(address), "tiff", [level], stack.numbering)
