"""Whether a coarse level shows what the finest one does, compared in a few places before it is relied on.

A level may be declared and never written, be all zeros, or be left over from another volume. A place is a
window of one section, seen twice:

    coarse    c c c c          fine, every k-th pixel    f . . f . .      or means of k x k    m m m
              c c c c                                    . . . . . .                           m m m

Levels are made by means, by single pixels and by smoothing, so the window may go with either, by its
correlation. Where the finest level varies little there is nothing to compare.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import CorruptDataError, MissingDataError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.storage.retry import RetryPolicy, with_retries
from vemdiffuse_pipe.volume import Source, Voxels

PLACES = ((3, 3), (1, 1), (5, 5), (1, 5), (5, 1))  # of a window, in sixths of what is left beside it
MAX_FINE_PX = 512  # along a side of a window
MIN_COARSE_PX = 8
MIN_DEVIATION = 2.0  # grey levels: what varies less says nothing
MIN_CORRELATION = 0.4

Plane = NDArray[np.float64]


def shows_the_same(coarse: Source, fine: Source) -> bool:
    """True where every window of `coarse` that says something goes with the same window of `fine`.

    One window in each of three sections. False where nowhere anything is said, and where `coarse` lacks what
    `fine` has. Raises AccessError or TransientError.
    """
    found = [_is_same_in(coarse, fine, section) for section in _sections(fine.spec.shape[0])]
    return True in found and False not in found


def _sections(n: int) -> list[int]:
    return sorted({n * part // 6 for part in (1, 3, 5)})


def _is_same_in(coarse: Source, fine: Source, section: int) -> bool | None:
    """Whether the first window of a section that says something is the same; None where none does."""
    for box, k in _windows(coarse.spec.shape, fine.spec.shape, section):
        shown = _read(fine, _finer(box, k, fine.spec.shape))
        if shown is None or shown.std() < MIN_DEVIATION:
            continue
        guess = _read(coarse, box)
        return guess is not None and _goes_with(guess[0].astype(np.float64), shown[0].astype(np.float64), k)
    return None


def _windows(coarse: Zyx, fine: Zyx, section: int) -> Iterator[tuple[Box, tuple[float, float]]]:
    """Windows of a section of the coarse level, and how many fine pixels make one of its own, y and x."""
    k = fine[1] / coarse[1], fine[2] / coarse[2]
    height, width = (
        min(n, max(MIN_COARSE_PX, int(MAX_FINE_PX / f))) for n, f in zip(coarse[1:], k, strict=True)
    )
    for py, px in PLACES:
        y, x = (coarse[1] - height) * py // 6, (coarse[2] - width) * px // 6
        yield Box.of_shape((1, height, width), (section, y, x)), k


def _finer(box: Box, k: tuple[float, float], shape: Zyx) -> Box:
    """The voxels of the finest level that a window of the coarse one is made of."""
    (z, y, x), (_, y_stop, x_stop) = box.start, box.stop
    start = z, int(y * k[0]), int(x * k[1])
    stop = z + 1, min(shape[1], round(y_stop * k[0])), min(shape[2], round(x_stop * k[1]))
    return Box(start, stop)


def _goes_with(coarse: Plane, fine: Plane, k: tuple[float, float]) -> bool:
    """True where the coarse window is like pixels of the fine one, or like their means."""
    rows, columns = (np.arange(n) * (m / n) for n, m in zip(coarse.shape, fine.shape, strict=True))
    first = fine[np.ix_(rows.astype(int), columns.astype(int))]
    middle = fine[np.ix_((rows + k[0] / 2).astype(int), (columns + k[1] / 2).astype(int))]
    sums = np.add.reduceat(np.add.reduceat(fine, rows.astype(int), 0), columns.astype(int), 1)
    area = np.add.reduceat(np.add.reduceat(np.ones_like(fine), rows.astype(int), 0), columns.astype(int), 1)
    return max(_correlation(coarse, guess) for guess in (first, middle, sums / area)) >= MIN_CORRELATION


def _correlation(a: Plane, b: Plane) -> float:
    deviations = a.std() * b.std()
    return float(((a - a.mean()) * (b - b.mean())).mean() / deviations) if deviations > 0 else 0.0


def _read(source: Source, box: Box) -> Voxels | None:
    """The voxels of a box, None where they are not all there."""
    try:
        return with_retries(lambda: source.read(box), RetryPolicy(), lambda reason: None)
    except (MissingDataError, CorruptDataError):
        return None
