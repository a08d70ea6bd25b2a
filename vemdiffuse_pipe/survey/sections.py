"""Which sections of a stack are no good: black, constant, absent, or the one before over again.

A section is cut into cells. A cell is tissue where its grey levels vary, and dead where they vary far less
than in the same cell of the last good section, or where it is not stored.

    section        7           8           9                T tissue
    cells       . T T T     . d d T     . T T T             d dead
                                                            . outside: never tissue, whatever its grey level

Section 8 is bad: most of what is tissue before it and after it is dead in it. Sections at either end of the
tissue have nothing before or after them, so that a black margin is never bad.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.volume import Voxels

CELL_PX = 64
MIN_DEVIATION = 2.0  # grey levels: what varies less is no tissue
DEAD_SHARE = 0.25  # of the deviation that the cell had
BLACK = 8.0  # grey levels: a dead section with a lower mean is black, another one constant
MAX = 0.5  # of the tissue's area
SAME_SHARE = 0.02  # of the deviation: sections that differ by less, voxel by voxel, are the same
SAME_AREA = 0.95  # of the tissue's area
MAX_RUN = 16  # sections with tissue elsewhere: after so many, the tissue has moved
MAX_GAP = 1000  # sections: after so many, the tissue has ended, and what follows is another piece

Reason = Literal["black", "constant", "duplicate", "missing"]
Slab = tuple[Voxels, NDArray[np.bool_]]
Cells = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class BadSection:
    """A section that should be rejected, counted from 0. `of`: which one a duplicate repeats."""

    section: int
    reason: Reason
    of: int | None = None

    def __str__(self) -> str:
        return f"{self.section} ({self.reason}{'' if self.of is None else f' of {self.of}'})"


@dataclass(frozen=True, slots=True)
class _Section:
    """Mean, deviation and share that is stored, of each cell."""

    index: int
    voxels: Voxels
    mean: Cells
    deviation: Cells
    is_stored: Mask

    @property
    def is_tissue(self) -> Mask:
        return self.is_stored & (self.deviation >= MIN_DEVIATION)

    def is_dead(self, good: _Section) -> Mask:
        return ~self.is_stored | (self.deviation < DEAD_SHARE * good.deviation)


def bad_sections(slabs: Iterable[Slab]) -> Iterator[BadSection]:
    """The bad sections, ascending but for duplicates among them.

    `slabs`: pairs of voxels, (z, y, x) uint8, and of what is stored of them, (z, y, x) bool; one after the
    other along z, of any thickness, which changes nothing. Memory: a slab, a few sections, and the cells of
    at most a thousand sections that have nothing good after them yet.
    """
    judge = _Judge()
    index = 0
    for voxels, stored in slabs:
        for section, is_stored in zip(voxels, stored, strict=True):
            yield from judge.add(_measured(index, section, is_stored))
            index += 1


class _Judge:
    """The last good section, and those after it that have lost most of its tissue."""

    def __init__(self) -> None:
        self._good: _Section | None = None
        self._lost: list[_Section] = []
        self._area: Cells = np.zeros(0)

    def add(self, section: _Section) -> Iterator[BadSection]:
        if self._good is None:
            if section.is_tissue.any():
                self._good, self._area = section, _area(section.voxels)
            return
        if self._share(section.is_dead(self._good), self._good.is_tissue) > MAX:
            self._lose(section)
            return
        common = self._good.is_tissue & section.is_tissue
        for lost in self._lost:
            if self._share(lost.is_dead(self._good), common) > MAX:
                yield BadSection(lost.index, self._reason(lost, common & lost.is_dead(self._good)))
        self._lost.clear()
        if self._is_same(section, self._good):
            yield BadSection(section.index, "duplicate", self._good.index)
        else:
            self._good = section

    def _lose(self, section: _Section) -> None:
        """Keep a section until a good one follows; many in a row that have tissue are good in their way."""
        assert self._good is not None
        nothing = np.empty((0, 0), np.uint8)
        self._lost.append(
            _Section(section.index, nothing, section.mean, section.deviation, section.is_stored)
        )
        if len(self._lost) > MAX_GAP:
            self._lost.clear()
            self._good = None
            return
        latest = self._lost[-MAX_RUN:]
        if len(latest) == MAX_RUN and all(lost.is_tissue.any() for lost in latest):
            self._lost.clear()
            self._good = section

    def _share(self, chosen: Mask, among: Mask) -> float:
        """The share of the area of `among` that is `chosen`; 0 where there is none."""
        return float(self._area[chosen & among].sum() / max(1.0, self._area[among].sum()))

    def _reason(self, lost: _Section, dead: Mask) -> Reason:
        if self._share(~lost.is_stored, dead) > MAX:
            return "missing"
        mean = float(np.average(lost.mean[dead], weights=self._area[dead]))
        return "black" if mean < BLACK else "constant"

    def _is_same(self, section: _Section, good: _Section) -> bool:
        tissue = section.is_tissue & good.is_tissue
        allowed = SAME_SHARE * good.deviation
        means_agree = np.abs(section.mean - good.mean) <= allowed
        if self._share(means_agree, tissue) < SAME_AREA:  # which is cheap to see, and nearly always so
            return False
        differences = np.abs(section.voxels.astype(np.int16) - good.voxels)
        return self._share(_sum(differences) / self._area <= allowed, tissue) >= SAME_AREA


def _measured(index: int, voxels: Voxels, stored: Mask) -> _Section:
    area = _area(voxels)
    mean = _sum(voxels) / area
    squares = _sum(np.square(voxels, dtype=np.int32)) / area
    deviation = np.sqrt(np.maximum(squares - np.square(mean), 0))
    is_stored = np.ones(area.shape, np.bool_) if stored.all() else _sum(stored) / area > MAX
    return _Section(index, voxels, mean, deviation, is_stored)


def _sum(values: NDArray[np.generic]) -> Cells:
    """Sums over cells; the last ones may be smaller."""
    rows, columns = (np.arange(0, n, CELL_PX) for n in values.shape)
    total = np.add.reduceat(np.add.reduceat(values, columns, axis=1, dtype=np.int64), rows, axis=0)
    return total.astype(np.float64)


def _area(voxels: Voxels) -> Cells:
    y, x = (np.diff([*range(0, n, CELL_PX), n]) for n in voxels.shape)
    return np.outer(y, x).astype(np.float64)
