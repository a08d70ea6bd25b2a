"""Sections restored one by one: section u becomes plane u, and nothing passes through.

section     0  1  x  3  4
plane       R  R  .  R  R                R restored, . missing: section x was rejected
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import Frame, Nm
from vemdiffuse_pipe.geometry.plane_groups import Provenance
from vemdiffuse_pipe.geometry.region import whole_voxels


@dataclass(frozen=True, slots=True)
class Single:
    """One section and the plane that is made from it, which has its number."""

    section: int

    @property
    def first_plane(self) -> int:
        """Its plane."""
        return self.section

    @property
    def n_planes(self) -> int:
        """One plane."""
        return 1

    @property
    def ratio(self) -> int:
        """One: planes are as far apart as sections."""
        return 1

    @property
    def sections(self) -> tuple[int, ...]:
        """The one section that its plane is made from."""
        return (self.section,)

    def position(self, plane: int) -> float:
        """0: the plane lies where its section lies."""
        return 0.0


@dataclass(frozen=True, slots=True)
class Singles:
    """`n_sections` sections, of which all but the `rejected` (ascending) are restored, each by itself."""

    n_sections: int
    rejected: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if list(self.rejected) != sorted(set(self.rejected)):
            raise PlanError(f"rejected sections {list(self.rejected)} must be ascending, each once")
        if any(not 0 <= u < self.n_sections for u in self.rejected):
            raise PlanError(
                f"rejected sections {list(self.rejected)}; the volume has 0 to {self.n_sections - 1}"
            )
        if len(self.rejected) == self.n_sections:
            raise PlanError(f"all {self.n_sections} sections are rejected; there is nothing to restore")

    @property
    def min_sections(self) -> int:
        """One: each is restored by itself."""
        return 1

    @property
    def r(self) -> int:
        """One: planes are as far apart as sections."""
        return 1

    @property
    def n_planes(self) -> int:
        """Planes of the output."""
        return self.n_sections

    @property
    def max_ratio(self) -> int:
        """One."""
        return 1

    @property
    def most_planes(self) -> int:
        """Planes made at once: one."""
        return 1

    def measured(self, first_plane: int, last_plane: int) -> Iterator[tuple[int, int]]:
        """Nothing: every plane is made."""
        return iter(())

    def touching(self, first_plane: int, last_plane: int) -> Iterator[Single]:
        """The sections that become planes in [first_plane, last_plane), ascending."""
        rejected = set(self.rejected)
        return (Single(u) for u in range(first_plane, last_plane) if u not in rejected)

    def counts_touching(self, first_plane: int, last_plane: int) -> list[tuple[int, int]]:
        """(how many sections, 1) of those that `touching` yields."""
        n_rejected = sum(first_plane <= u < last_plane for u in self.rejected)
        return [(last_plane - first_plane - n_rejected, 1)]

    def sections_for(self, first_plane: int, last_plane: int, reach: int = 0) -> tuple[int, int]:
        """[first, stop) of the sections needed for planes [first_plane, last_plane).

        `reach`: further sections on either side of one that the model looks at, cut at the ends.
        """
        return max(0, first_plane - reach), min(self.n_sections, last_plane + reach)

    def region(self, frame: Frame, first_nm: Nm, stop_nm: Nm) -> Box:
        """The smallest box of voxels of the source that holds a part of the world."""
        return whole_voxels(frame, first_nm, stop_nm)

    def provenance(self, filled: Collection[int] = (), reach: int = 0) -> NDArray[np.uint8]:
        """One `Provenance` a plane: (n_planes,) uint8. `filled`, `reach`: as in `Gaps.provenance`."""
        codes = np.full(self.n_planes, Provenance.RESTORED, np.uint8)
        for section in filled:
            codes[max(0, section - reach) : section + reach + 1] = Provenance.RESTORED_PARTLY_FILLED
        codes[list(self.rejected)] = Provenance.MISSING
        return codes
