"""A look at every section before a run: at a coarse level, in slabs, in bounded memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from vemdiffuse_pipe.config import SourceTable
from vemdiffuse_pipe.errors import CorruptDataError, DataError, MissingDataError, SourceError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage.retry import RetryPolicy, with_retries
from vemdiffuse_pipe.storage.source import StoredSource
from vemdiffuse_pipe.survey.levels import shows_the_same
from vemdiffuse_pipe.survey.sections import BadSection, Slab, bad_sections
from vemdiffuse_pipe.volume import Source

MAX_PX = 1 << 20  # of a section
WINDOW_PX = 256
WINDOWS = 4  # along y, and along x
SLAB_SECTIONS = 16


def find_bad_sections(source: Source) -> tuple[BadSection, ...]:
    """The sections of `source` that should be rejected, ascending, by their number in `source`.

    They are looked for in `preflight_level(source)`: whole sections, or, where they have more than 1,048,576
    px, 4 x 4 windows of 256 x 256 px. A chunk that is not stored, or cannot be decoded, is missing there,
    whatever the source is told of such chunks. Raises AccessError or TransientError.
    """
    level = preflight_level(source)
    return tuple(sorted(bad_sections(_slabs(level)), key=lambda bad: bad.section))


def sections_to_reject(table: SourceTable, source: Source, rejected: Collection[int]) -> tuple[int, ...]:
    """The bad sections to reject beside `rejected`, ascending, as `table` wants it; none where it keeps them.

    A section that is not stored is left to the policy of missing data where there is one. Raises SourceError
    where bad sections are refused and there are any, or where nobody can look for them.
    """
    if table.bad_sections == "keep":
        return ()
    try:
        found = find_bad_sections(source)
    except DataError as error:
        raise SourceError(
            f"{error}; give bad_sections as keep, so that nobody looks for them before the run"
        ) from error
    has_policy = (table.missing, table.corrupt) != ("fail", "fail")
    bad = [b for b in found if b.section not in rejected and not (b.reason == "missing" and has_policy)]
    if bad and table.bad_sections == "refuse":
        shown = ", ".join(map(str, bad[:8])) + (f" and {len(bad) - 8} more" if len(bad) > 8 else "")
        raise SourceError(
            f"{table.url} has sections that are no data: {shown}; give bad_sections as bridge to leave them "
            "out, or as keep to take them as they are"
        )
    return tuple(b.section for b in bad)


def preflight_level(source: Source) -> Source:
    """The coarsest level that has every section of `source` and shows the same; else `source` itself."""
    if not isinstance(source, StoredSource):
        return source
    strict = source.strict()
    return next((level for level in source.coarser_levels() if shows_the_same(level, strict)), strict)


def _slabs(source: Source) -> Iterator[Slab]:
    """All sections, a few at a time: their windows beside each other."""
    n_sections, depth = source.spec.shape[0], _slab_depth(source)
    windows = _windows(source)
    _, height, width = windows[0].shape
    for first in range(0, n_sections, depth):
        stop = min(n_sections, first + depth)
        voxels = np.empty((stop - first, height, width * len(windows)), np.uint8)
        stored = np.empty(voxels.shape, np.bool_)
        for i, window in enumerate(windows):
            box = Box((first, *window.start[1:]), (stop, *window.stop[1:]))
            beside = np.s_[..., i * width : (i + 1) * width]
            voxels[beside], stored[beside] = _read(source, box)
        yield voxels, stored


def _windows(source: Source) -> list[Box]:
    """What is looked at of each section: boxes of the first one."""
    _, ny, nx = source.spec.shape
    if ny * nx <= MAX_PX:
        return [Box((0, 0, 0), (1, ny, nx))]
    rows, columns = _spread(ny), _spread(nx)
    return [Box((0, y.start, x.start), (1, y.stop, x.stop)) for y in rows for x in columns]


def _spread(n: int) -> list[slice]:
    """Windows evenly along an axis of `n` px: the middles of equal parts."""
    size = min(n, WINDOW_PX)
    starts = ((2 * i + 1) * n // (2 * WINDOWS) - size // 2 for i in range(WINDOWS))
    return [slice(start, start + size) for start in (max(0, min(s, n - size)) for s in starts)]


def _slab_depth(source: Source) -> int:
    """Sections in a slab: as many whole chunks as fit, or one where chunks are larger than the windows."""
    z, y, x = source.spec.chunk_shape
    if z >= SLAB_SECTIONS:
        return SLAB_SECTIONS
    return z if y * x > MAX_PX else SLAB_SECTIONS // z * z


def _read(source: Source, box: Box) -> Slab:
    """The voxels of `box`, and which of them are stored; those that are not are 0."""
    try:
        voxels = with_retries(lambda: source.read(box), RetryPolicy(), lambda reason: None)
        return voxels, np.broadcast_to(np.True_, box.shape)
    except (MissingDataError, CorruptDataError):
        halves = _halves(box, source.spec.chunk_shape)
    if halves is None:
        return np.zeros(box.shape, np.uint8), np.zeros(box.shape, np.bool_)
    axis, parts = halves
    (voxels, stored), (more_voxels, more_stored) = (_read(source, part) for part in parts)
    return np.concatenate([voxels, more_voxels], axis), np.concatenate([stored, more_stored], axis)


def _halves(box: Box, chunk_shape: tuple[int, int, int]) -> tuple[int, tuple[Box, Box]] | None:
    """`box` cut in two between chunks, and along which axis; None where it lies in one chunk."""
    spans = [
        (start // chunk, (stop - 1) // chunk)
        for start, stop, chunk in zip(box.start, box.stop, chunk_shape, strict=True)
    ]
    axis = max(range(3), key=lambda a: spans[a][1] - spans[a][0])
    first, last = spans[axis]
    if first == last:
        return None
    start, stop = list(box.start), list(box.stop)
    start[axis] = stop[axis] = (first + last + 1) // 2 * chunk_shape[axis]
    z, y, x = stop
    z_start, y_start, x_start = start
    return axis, (Box(box.start, (z, y, x)), Box((z_start, y_start, x_start), box.stop))
