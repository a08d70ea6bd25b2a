"""Public volumes by name: what datasets.toml says of them, and the address that a name stands for."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict, PositiveFloat

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.geometry.frame import Nm, exact_nm
from vemdiffuse_pipe.storage.address import Address, parse_address


class Dataset(BaseModel):
    """A public volume; None where something is not known. `voxel_size_nm`: of its finest level, zyx."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    address: str | None = None
    also: tuple[str, ...] = ()
    page: str | None = None
    voxel_size_nm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    licence: str | None = None
    citation: str | None = None

    @property
    def size_nm(self) -> Nm | None:
        """The voxel size, exact."""
        return None if self.voxel_size_nm is None else exact_nm(self.voxel_size_nm)


@cache
def datasets() -> Mapping[str, Dataset]:
    """All public volumes, by name.

    Example:

        >>> from vemdiffuse_pipe import datasets
        >>> "microns" in datasets()
        True
    """
    tables = tomllib.loads(Path(__file__).with_name("datasets.toml").read_text())
    return MappingProxyType({name: Dataset.model_validate(table) for name, table in tables.items()})


def source_address(url: str | os.PathLike[str]) -> Address:
    """The address of a volume to read: `url` itself, or of the public volume that it names.

    What lies on the disk under that name comes first. Raises ConfigError for what is no address, SourceError
    for a volume that must be downloaded first, and for a name that is nearly that of a public volume.
    """
    name, known = os.fspath(url), datasets()
    near = [] if "/" in name else difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.75)
    if not near or Path(name).exists():
        return parse_address(url)
    if name not in known:
        raise SourceError(
            f"{name} is neither here nor the name of a public volume; did you mean {near[0]}? "
            "`vemdiffuse datasets` lists them"
        )
    return _address_of(name, known[name])


def _address_of(name: str, dataset: Dataset) -> Address:
    if dataset.address is None:
        raise SourceError(
            f"{name} cannot be read from where it is published; download it from {dataset.page} and give "
            "the path of the file"
        )
    return parse_address(dataset.address)
