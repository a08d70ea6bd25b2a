"""Sections and planes along z.

    section     0              1              2                       (r = 5)
    plane       0  1  2  3  4  5  6  7  8  9  10
                M  g  g  g  g  M  g  g  g  g  M      M measured, g generated
                   |- gap 0 -|    |- gap 1 -|

A rejected section is not used: the gap that bridges it is 2 r wide, and its planes say so.

    section     0              x              2
    plane       0  1  2  3  4  5  6  7  8  9  10
                M  b  b  b  b  b  b  b  b  b  M      b bridged

On an exact grid r need not be whole: planes lie r to a section all the same, and a section is kept only where
a plane falls on it.

    section     0       1       2       3       4                     (r = 8 / 3)
    plane       0  1  2  3  4  5  6  7  8  9  10
                M  g  g  g  g  g  g  g  M  g  g
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import Frame, Nm
from vemdiffuse_pipe.geometry.plane_groups import PARTLY_FILLED, Provenance, Ratio
from vemdiffuse_pipe.geometry.region import whole_sections


@dataclass(frozen=True, slots=True)
class Gap:
    """Two neighbouring kept sections at ratio r, and the planes that lie between them.

    `has_lower`, `has_upper`: the plane that lies at that section is made with them.
    """

    lower: int
    upper: int
    r: Ratio
    has_lower: bool = False
    has_upper: bool = False

    @property
    def ratio(self) -> Ratio:
        """Its width, in planes."""
        return (self.upper - self.lower) * self.r

    @property
    def first_plane(self) -> int:
        """The first plane above the lower section, or at it."""
        return ceil(self.lower * self.r) if self.has_lower else floor(self.lower * self.r) + 1

    @property
    def n_planes(self) -> int:
        """Planes to generate."""
        stop = floor(self.upper * self.r) + 1 if self.has_upper else ceil(self.upper * self.r)
        return stop - self.first_plane

    @property
    def sections(self) -> tuple[int, ...]:
        """The sections that its planes are made from, ascending."""
        return self.lower, self.upper

    def position(self, plane: int) -> float:
        """Where a plane lies: 0 at the lower section, 1 at the upper."""
        return float((plane - self.lower * self.r) / self.ratio)


@dataclass(frozen=True, slots=True)
class Gaps:
    """`n_sections` measured sections at ratio r give (n_sections - 1) * r + 1 planes, the last one whole.

    `rejected`: sections that are bridged, ascending; never the first or the last. `keeps_sections`: False
    where planes at sections are made as all others are: each belongs to the gap above, the last to the gap
    below.
    """

    n_sections: int
    r: Ratio
    rejected: tuple[int, ...] = ()
    keeps_sections: bool = True

    def __post_init__(self) -> None:
        if self.n_sections < 2:
            raise PlanError(f"the source has {self.n_sections} section along z; at least 2 are needed")
        if self.r <= 1:
            raise PlanError(f"ratio {self.r}; more than 1 is needed: there is nothing to generate")
        if list(self.rejected) != sorted(set(self.rejected)):
            raise PlanError(f"rejected sections {list(self.rejected)} must be ascending, each once")
        if any(not 0 < u < self.n_sections - 1 for u in self.rejected):
            raise PlanError(
                f"rejected sections {list(self.rejected)} must lie between the first and the last section "
                f"(1..{self.n_sections - 2}); crop the volume instead"
            )

    @property
    def min_sections(self) -> int:
        """Two: a gap lies between them."""
        return 2

    @property
    def n_planes(self) -> int:
        """Planes of the output."""
        return floor((self.n_sections - 1) * self.r) + 1

    @property
    def max_ratio(self) -> Ratio:
        """The widest gap, in planes: r unless sections are rejected."""
        return max((self.gap_above(section).ratio for section in self.rejected), default=self.r)

    @property
    def most_planes(self) -> int:
        """Planes made at once, at most: those of the widest gap, wherever it lies among the planes."""
        n_between = ceil(self.max_ratio - Fraction(1, self.r.denominator))
        return n_between if self.keeps_sections else n_between + 2

    def is_rejected(self, section: int) -> bool:
        """True when `section` is bridged."""
        i = bisect_left(self.rejected, section)
        return i < len(self.rejected) and self.rejected[i] == section

    def gap_above(self, section: int) -> Gap:
        """The gap that holds what lies just above `section`, which may be a rejected one.

        Of the last section, where sections are not kept: the gap below.
        """
        lower = section if self.keeps_sections else min(section, self.n_sections - 2)
        while self.is_rejected(lower):
            lower -= 1
        upper = lower + 1
        while self.is_rejected(upper):
            upper += 1
        is_last = upper == self.n_sections - 1
        return Gap(lower, upper, self.r, not self.keeps_sections, not self.keeps_sections and is_last)

    def measured(self, first_plane: int, last_plane: int) -> Iterator[tuple[int, int]]:
        """(section, plane) of the measured planes in [first_plane, last_plane) that are kept, ascending."""
        if not self.keeps_sections:
            return
        planes, sections = self.r.as_integer_ratio()
        for i in range(-(-first_plane // planes), -(-last_plane // planes)):
            if not self.is_rejected(i * sections):
                yield i * sections, i * planes

    def touching(self, first_plane: int, last_plane: int) -> Iterator[Gap]:
        """Gaps that have a generated plane in [first_plane, last_plane), ascending. O(gaps returned)."""
        plane = first_plane
        while plane < last_plane:
            section, offset = divmod(plane, self.r)
            if offset == 0 and self.keeps_sections and not self.is_rejected(section):
                plane += 1
                continue
            gap = self.gap_above(section)
            yield gap
            plane = gap.first_plane + gap.n_planes

    def counts_touching(self, first_plane: int, last_plane: int) -> list[tuple[int, int]]:
        """(how many gaps, planes of each) of those that `touching` yields. O(1) where none is rejected."""
        if self.rejected or not self.keeps_sections:
            return [(1, gap.n_planes) for gap in self.touching(first_plane, last_plane)]
        r = self.r
        stop = last_plane - 1 if (last_plane - 1) % r == 0 else last_plane  # a measured plane touches no gap
        if first_plane >= stop:
            return []
        lower, upper = first_plane // r, (stop - 1) // r + 1  # sections around, every one between them kept
        on_sections = (upper - 1) // r.denominator - lower // r.denominator
        n_generated = ceil(upper * r) - floor(lower * r) - 1 - on_sections
        fewer, n_more = divmod(n_generated, upper - lower)
        return [(upper - lower - n_more, fewer), (n_more, fewer + 1)]

    def sections_for(self, first_plane: int, last_plane: int, reach: int = 0) -> tuple[int, int]:
        """[first, stop) of the sections needed for planes [first_plane, last_plane).

        `reach`: further sections on either side of a gap that the model looks at, cut at the ends.
        """
        last, is_kept = last_plane - 1, self.keeps_sections
        low, high = first_plane // self.r, -(-last // self.r)
        if first_plane % self.r or not is_kept:
            low = self.gap_above(low).lower
        if not is_kept:
            high = self.gap_above(last // self.r).upper
        while self.is_rejected(low):
            low -= 1
        while self.is_rejected(high):
            high += 1
        return max(0, low - reach), min(self.n_sections, high + 1 + reach)

    def region(self, frame: Frame, first_nm: Nm, stop_nm: Nm) -> Box:
        """The smallest box of the source whose planes hold a part of the world: from section to section."""
        return whole_sections(frame, first_nm, stop_nm)

    def provenance(self, filled: Collection[int] = (), reach: int = 0) -> NDArray[np.uint8]:
        """One `Provenance` a plane: (n_planes,) uint8.

        `filled`: kept sections some of whose voxels were filled; so are the planes generated from them.
        `reach`: as in `sections_for`.
        """
        codes = np.full(self.n_planes, Provenance.GENERATED, dtype=np.uint8)
        codes[:: self.r.numerator] = Provenance.MEASURED if self.keeps_sections else Provenance.RESTORED
        for section in self.rejected:
            gap = self.gap_above(section)
            codes[floor(gap.lower * self.r) + 1 : ceil(gap.upper * self.r)] = Provenance.BRIDGED
        is_filled = np.zeros(self.n_planes, bool)
        for section in filled:
            lower = self.gap_above(max(0, section - 1 - reach)).lower
            upper = min(self.gap_above(section).upper + reach, self.n_sections - 1)
            is_filled[ceil(lower * self.r) : floor(upper * self.r) + 1] = True
        is_other = codes == Provenance.MEASURED
        planes, sections = self.r.as_integer_ratio()
        is_other[[u // sections * planes for u in filled if u % sections == 0]] = False  # filled themselves
        codes[is_filled & ~is_other] += PARTLY_FILLED
        return codes
