"""The planes in which a volume is looked at, and the rows of them that count.

    xy: one view a generated plane          xz, yz: whole planes; only generated rows count

        y ^                                     z ^  measured   ----------------
          | + + + + + + +                         |  generated  + + + + + + + +
          | + + + + + + +                         |  generated  + + + + + + + +
          | + + + + + + +                         |  measured   ----------------
          +--------------> x                      +--------------> x (or y)

An image metric computes its map on the whole view, so that a generated row is seen beside its measured
neighbours, and pools the map over the rows that count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.volume import Voxels

Direction = Literal["xy", "xz", "yz"]

Index = tuple[slice | int, ...]

AXES: dict[Direction, int] = {"xy": 0, "xz": 1, "yz": 2}
MAX_VIEWS = 32
WINDOW_PX = 256


@dataclass(frozen=True, slots=True)
class View:
    """One plane of both volumes: (row, column) uint8. `rows`: (row,), True where the row counts."""

    prediction: Voxels
    truth: Voxels
    rows: NDArray[np.bool_]


def views(
    prediction: Voxels, truth: Voxels, planes: Sequence[int], direction: Direction, at_most: int = MAX_VIEWS
) -> Iterator[View]:
    """Views of two volumes along one direction, evenly spaced: at most `at_most`, never fewer than one.

    `prediction`, `truth`: zyx, of one shape. `planes`: generated planes, ascending.
    """
    axis = AXES[direction]
    if axis == 0:
        chosen, rows = planes, np.ones(truth.shape[1], np.bool_)
    else:
        chosen, rows = range(truth.shape[axis]), np.isin(np.arange(truth.shape[0]), planes)
    for i in evenly_spaced(chosen, at_most):
        at: Index = (*(slice(None),) * axis, i)
        yield View(prediction[at], truth[at], rows)


def evenly_spaced(items: Sequence[int], at_most: int) -> list[int]:
    """All items, or `at_most` of them: the middles of that many equal parts."""
    n = min(len(items), at_most)
    return [items[(2 * i + 1) * len(items) // (2 * n)] for i in range(n)]


def window(view: View) -> View:
    """At most 256 x 256 px of a view, around its middle column and the middle one of its counted rows."""
    counted = np.flatnonzero(view.rows)
    row = _window_around(int(counted[len(counted) // 2]), len(view.rows))
    column = _window_around(view.truth.shape[1] // 2, view.truth.shape[1])
    return View(view.prediction[row, column], view.truth[row, column], view.rows[row])


def _window_around(centre: int, length: int) -> slice:
    start = max(0, min(centre - WINDOW_PX // 2, length - WINDOW_PX))
    return slice(start, start + WINDOW_PX)
