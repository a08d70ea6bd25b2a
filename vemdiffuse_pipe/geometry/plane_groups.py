"""Planes in groups, each made from the sections of its group: what plans and renders are written for.

Gaps      a group is a gap: the planes between two sections          (gaps.py)
Singles   a group is one section and the plane restored from it      (restored.py)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from enum import IntEnum
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import Frame, Nm

Ratio = int | Fraction


class Provenance(IntEnum):
    """Where a plane comes from; the numbers are those stored in the output.

    Those that end in PARTLY_FILLED: some voxels of the sections that it comes from did not exist, and were
    filled. RESTORED: made from the one section that lies where it lies.
    """

    MISSING = 0
    MEASURED = 1
    GENERATED = 2
    BRIDGED = 3
    MEASURED_PARTLY_FILLED = 5
    GENERATED_PARTLY_FILLED = 6
    BRIDGED_PARTLY_FILLED = 7
    RESTORED = 8
    RESTORED_PARTLY_FILLED = 12


PARTLY_FILLED = 4  # what a code is raised by


class PlaneGroup(Protocol):
    """Planes that are made together, from the same sections."""

    @property
    def sections(self) -> tuple[int, ...]:
        """The sections that its planes are made from, ascending."""
        ...

    @property
    def first_plane(self) -> int:
        """The number of its first plane."""
        ...

    @property
    def n_planes(self) -> int:
        """Planes to make."""
        ...

    @property
    def ratio(self) -> Ratio:
        """Its width, in planes."""
        ...

    def position(self, plane: int) -> float:
        """Where a plane lies: 0 at the lowest of its sections, 1 at the highest."""
        ...


class PlaneGroups(Protocol):
    """The planes of a whole volume, numbered from 0, and the groups that they are made in."""

    @property
    def n_sections(self) -> int:
        """Sections of the source."""
        ...

    @property
    def min_sections(self) -> int:
        """The fewest sections from which planes can be made."""
        ...

    @property
    def rejected(self) -> tuple[int, ...]:
        """Sections that are not used, ascending."""
        ...

    @property
    def r(self) -> Ratio:
        """Planes to a section."""
        ...

    @property
    def max_ratio(self) -> Ratio:
        """The widest group, in planes."""
        ...

    @property
    def n_planes(self) -> int:
        """Planes of the output."""
        ...

    @property
    def most_planes(self) -> int:
        """Planes made at once, at most."""
        ...

    def measured(self, first_plane: int, last_plane: int) -> Iterator[tuple[int, int]]:
        """(section, plane) of the sections that pass through in [first_plane, last_plane), ascending."""
        ...

    def touching(self, first_plane: int, last_plane: int) -> Iterator[PlaneGroup]:
        """Groups that have a plane to make in [first_plane, last_plane), ascending. O(groups returned)."""
        ...

    def counts_touching(self, first_plane: int, last_plane: int) -> list[tuple[int, int]]:
        """(how many groups, planes of each) of those that `touching` yields. O(1) where none is rejected."""
        ...

    def sections_for(self, first_plane: int, last_plane: int, reach: int = 0) -> tuple[int, int]:
        """[first, stop) of the sections needed for planes [first_plane, last_plane).

        `reach`: further sections on either side of a group that the model looks at, cut at the ends.
        """
        ...

    def region(self, frame: Frame, first_nm: Nm, stop_nm: Nm) -> Box:
        """The smallest box of the source, of frame `frame`, from which a part of the world is made.

        Raises PlanError where the volume has nothing of it.
        """
        ...

    def provenance(self, filled: Collection[int] = (), reach: int = 0) -> NDArray[np.uint8]:
        """One `Provenance` a plane: (n_planes,) uint8.

        `filled`: kept sections some of whose voxels were filled; so are the planes made from them.
        `reach`: as in `sections_for`.
        """
        ...
