"""What a driver finds: the levels of a volume, each placed in space, none opened yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Frame, Nm, show_nm
from vemdiffuse_pipe.storage.metadata import MAX_LENGTH_NM, MIN_VOXEL_NM, listed
from vemdiffuse_pipe.storage.section_names import Numbering

UNIT_VOXEL: Nm = (Fraction(1), Fraction(1), Fraction(1))
ORIGIN: Nm = (Fraction(0), Fraction(0), Fraction(0))
TOLERANCE = Fraction(1, 100)  # voxel sizes this close, relatively, are the same


class Reader(Protocol):
    """An open array, zyx, in the type that is stored. `dtype` is numpy's name of it.

    `fill_value`: what the format says an absent chunk stands for, 0 where it says nothing.
    Asking for it raises MissingDataError where the format says something that is no value of the type.
    `codec`: how its chunks are encoded, in a word or two: 'jpeg', 'blosc zstd', 'raw'.
    `read_by`: whose code decodes them: 'tensorstore', 'zarr-python'.
    """

    @property
    def shape(self) -> Zyx: ...  # noqa: D102

    @property
    def chunk_shape(self) -> Zyx: ...  # noqa: D102

    @property
    def shard_shape(self) -> Zyx: ...  # noqa: D102

    @property
    def dtype(self) -> str: ...  # noqa: D102

    @property
    def fill_value(self) -> int | float: ...  # noqa: D102

    @property
    def codec(self) -> str: ...  # noqa: D102

    @property
    def read_by(self) -> str: ...  # noqa: D102

    def read(self, box: Box) -> NDArray[np.generic]:
        """The voxels of a box that lies inside. Raises DataError or TransientError."""
        ...


class StoredArray(Protocol):
    """An array that can be opened."""

    def open(self, cache_bytes: int = 0, channel: int | None = None) -> Reader:
        """Check the array's own metadata and open it. Raises SourceError or TransientError.

        `channel`: which one, where there are more.
        """
        ...


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution. `voxel_size` and `corner`, zyx, are nm where `is_in_nm`.

    Elsewhere the metadata states no unit: only ratios mean something, and the voxel size must be given.
    """

    name: str
    array: StoredArray
    voxel_size: Nm = UNIT_VOXEL
    corner: Nm = ORIGIN
    is_in_nm: bool = False

    def __post_init__(self) -> None:
        if min(self.voxel_size) < MIN_VOXEL_NM or max(self.voxel_size) > MAX_LENGTH_NM:
            raise SourceError(f"level {self.name}: its voxel size is not between 1e-6 and 1e18 nm")
        if max(map(abs, self.corner)) > MAX_LENGTH_NM:
            raise SourceError(f"level {self.name}: it lies more than 1e18 nm from the origin")

    @classmethod
    def from_centre(
        cls,
        name: str,
        array: StoredArray,
        axes: Sequence[str],
        scale: Sequence[Fraction],
        centre: Sequence[Fraction],
        units_nm: Sequence[Fraction | None],
    ) -> Level:
        """The level whose voxel 0 is centred at `centre`: a number for each of `axes`, in the axis' unit."""
        zyx = [axes.index(axis) for axis in "zyx"]
        size = [scale[axis] * (units_nm[axis] or 1) for axis in zyx]
        corner = [(centre[axis] - scale[axis] / 2) * (units_nm[axis] or 1) for axis in zyx]
        is_in_nm = all(units_nm[axis] is not None for axis in zyx)
        return cls(name, array, zyx_of(size), zyx_of(corner), is_in_nm)

    def frame(self, shape: Zyx, given_nm: Nm | None) -> Frame:
        """The level's frame in nm; `given_nm` is its voxel size where the metadata states none."""
        if self.is_in_nm or given_nm is None:
            return Frame(shape, self.voxel_size, self.corner)
        z, y, x = (c * g / s for c, g, s in zip(self.corner, given_nm, self.voxel_size, strict=True))
        return Frame(shape, given_nm, (z, y, x))

    def has_size(self, wanted_nm: Nm) -> bool:
        """True where each voxel size is within 1 % of the wanted one."""
        return all(abs(s - w) <= TOLERANCE * w for s, w in zip(self.voxel_size, wanted_nm, strict=True))

    def __str__(self) -> str:
        return f"{self.name} ({show_nm(self.voxel_size)} nm)" if self.is_in_nm else self.name


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as its metadata describes it: `url`, what format it is in, and at least one level.

    `numbering`: of its files, where each is a section.
    """

    url: str
    format: str
    levels: Sequence[Level]
    numbering: Numbering | None = None

    def choose(self, name: str | None, given_nm: Nm | None) -> Level:
        """The level called `name`, or the one of that voxel size, or the finest.

        Raises SourceError where there is none, or where no voxel size is known.
        """
        return self.candidates(name, given_nm)[0]

    def candidates(self, name: str | None, given_nm: Nm | None) -> Sequence[Level]:
        """The levels that could be meant, the finest first: where that is not there, another one may be.

        Raises SourceError where there is none, or where no voxel size is known.
        """
        named = [level for level in self.levels if name in (None, level.name)]
        if not named:
            raise SourceError(f"{self.url} has no level {name!r}; it has {self._listing()}")
        fitting = [v for v in named if given_nm is None or not v.is_in_nm or v.has_size(given_nm)]
        if not fitting and self.format in ("tiff", "mrc"):  # where programs write sizes that nobody set
            return [replace(named[0], is_in_nm=False)]
        if not fitting:
            raise SourceError(
                f"{self.url} has no level with voxels of {show_nm(given_nm or ORIGIN)} nm; "
                f"it has {self._listing()}: give one of these sizes, or none for the finest"
            )
        found = sorted(fitting, key=lambda level: prod(level.voxel_size))
        if not found[0].is_in_nm and given_nm is None:
            raise SourceError(
                f"{self.url} does not state its voxel size in a unit of length; "
                "give it in nanometres: --voxel-size Z Y X"
            )
        return found if found[0].is_in_nm else found[:1]

    def _listing(self) -> str:
        return listed([str(level) for level in self.levels])


def zyx_of(values: Sequence[Fraction]) -> Nm:
    """Three lengths, which are in this order already."""
    z, y, x = values
    return z, y, x
