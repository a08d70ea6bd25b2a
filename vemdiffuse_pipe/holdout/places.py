"""Where a volume is tested: a bounded number of places, drawn over all of it, the same each time.

    section    u - 3    u - 1     u     u + 1    u + 3
               given    given  left out given    given         every second section, around the one left out

A place is a window of at most 256 px of one section, drawn by its number alone: one more changes no other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import ConfigError, CorruptDataError, MissingDataError, SourceError
from vemdiffuse_pipe.evaluation.structure import WIDTH
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage.retry import RetryPolicy, with_retries
from vemdiffuse_pipe.volume import Source, Voxels

WINDOW_PX = 256
TRIES = 64  # windows in a row that may show no tissue
MIN_DEVIATION = 2.0  # grey levels: a window that varies less shows no tissue
MAX_PADDING = 0.25  # of a window may be black or white
SEED = 0


@dataclass(frozen=True, slots=True)
class Place:
    """A window of a section that is left out. `truth`: (y, x) uint8. `start`: its first voxel, zyx.

    `given`: (2 + 2 * reach, y, x) uint8, every second section around it, mirrored at the ends of the volume.
    """

    start: tuple[int, int, int]
    truth: Voxels
    given: Voxels


def draw_places(source: Source, n_places: int, reach: int, region: Box | None = None) -> list[Place]:
    """`n_places` places with tissue; `reach`: sections given beyond the two neighbours, each side.

    `region`: where the windows lie; anywhere if None. Its sections do not matter.

    Raises ConfigError for a volume that is too small, SourceError where nowhere is tissue, AccessError or
    TransientError.
    """
    n_sections, *sides = source.spec.shape
    if n_sections < 3 or min(sides) < WIDTH:
        raise ConfigError(
            f"{source.spec.url} has {n_sections} sections of {sides[0]} x {sides[1]} px; at least 3 of "
            f"{WIDTH} x {WIDTH} px are needed to leave one out and to compare what is made of its neighbours"
        )
    return [_draw(source, number, reach, region or source.spec.frame.box) for number in range(n_places)]


def _draw(source: Source, number: int, reach: int, region: Box) -> Place:
    n_sections, (_, y0, x0), (_, ny, nx) = source.spec.shape[0], region.start, region.shape
    shape = (1, min(ny, WINDOW_PX), min(nx, WINDOW_PX))
    rng = np.random.Generator(np.random.Philox(key=SEED, counter=[0, 0, 0, number]))
    for _ in range(TRIES):
        u = int(rng.integers(1, n_sections - 1))
        y, x = (int(rng.integers(n - m + 1)) for n, m in zip((ny, nx), shape[1:], strict=True))
        place = _read(source, Box.of_shape(shape, (u, y0 + y, x0 + x)), reach)
        if place is not None:
            return place
    raise SourceError(
        f"{source.spec.url} shows no tissue in any of {TRIES} windows drawn over it; is it the right level, "
        "and its intensity window?"
    )


def _read(source: Source, window: Box, reach: int) -> Place | None:
    """The place at a window; None where a section cannot be read, shows no tissue, or is a duplicate."""
    u = window.start[0]
    given = given_sections(u, source.spec.shape[0], reach)
    box = Box((int(given.min()), *window.start[1:]), (int(given.max()) + 1, *window.stop[1:]))
    try:
        sections = with_retries(lambda: source.read(box), RetryPolicy(), lambda reason: None)
    except (MissingDataError, CorruptDataError):
        return None
    truth, below, above = (sections[i - box.start[0]] for i in (u, u - 1, u + 1))
    is_repeated = any(np.array_equal(truth, other) for other in (below, above))
    if is_repeated or not all(map(_shows_tissue, (truth, below, above))):
        return None
    return Place(window.start, truth, sections[given - box.start[0]])


def given_sections(u: int, n_sections: int, reach: int) -> NDArray[np.int64]:
    """Every second section around `u`, which is left out: (2 + 2 * reach,), mirrored about the ends."""
    kept = np.arange((u - 1) % 2, n_sections, 2)
    at = int(np.searchsorted(kept, u - 1))
    return np.pad(kept, reach, mode="reflect")[at : at + 2 + 2 * reach]


def _shows_tissue(section: Voxels) -> bool:
    padding = np.count_nonzero((section == 0) | (section == 255))
    return bool(padding <= MAX_PADDING * section.size and section.std() >= MIN_DEVIATION)
