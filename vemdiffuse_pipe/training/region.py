"""Where crops may begin: inside a region, touching nothing that is held back.

           region                     first voxels of crops of `extent`
    +--------------------+           +--------------+
    |                    |           |##############|....
    |          +----+    |           |####+------+##|   .     the hole grows by extent - 1, downwards,
    |          |hole|    |    -->    |####|      |##|   .     the region shrinks by as much: what is left
    |          +----+    |           |####+------+##|   .     is at most six boxes for each hole
    |                    |           +--------------+   .
    +--------------------+            ...................

A crop that begins in one of those boxes holds no voxel of a hole; nor does the box around all crops that
begin in one of them, since two boxes that are apart are apart along one axis. So what is read for them is
free of holes too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vemdiffuse_pipe.geometry.box import Box, Zyx


def first_voxels(region: Box, extent: Zyx, holes: Sequence[Box]) -> list[Box]:
    """The first voxels of every crop of `extent` inside `region` that touches no hole: disjoint boxes."""
    z, y, x = (b - n + 1 for b, n in zip(region.stop, extent, strict=True))
    boxes = [Box(region.start, (z, y, x))]
    for hole in (hole for hole in holes if not hole.is_empty):
        grown = _grown_downwards(hole, extent)
        boxes = [part for box in boxes for part in without(box, grown)]
    return [box for box in boxes if not box.is_empty]


def without(box: Box, hole: Box) -> Iterator[Box]:
    """What of `box` is not in `hole`: at most six disjoint boxes."""
    if box.intersect(hole).is_empty:
        yield box
        return
    for axis in range(3):
        below, box = _cut(box, axis, hole.start[axis])
        box, above = _cut(box, axis, hole.stop[axis])
        yield from (part for part in (below, above) if not part.is_empty)


def _cut(box: Box, axis: int, at: int) -> tuple[Box, Box]:
    """The parts of a box below and from `at` on, along one axis; either may be empty."""
    at = min(max(at, box.start[axis]), box.stop[axis])
    return Box(box.start, _with(box.stop, axis, at)), Box(_with(box.start, axis, at), box.stop)


def _with(place: Zyx, axis: int, value: int) -> Zyx:
    z, y, x = (value if i == axis else v for i, v in enumerate(place))
    return z, y, x


def _grown_downwards(box: Box, extent: Zyx) -> Box:
    z, y, x = (a - n + 1 for a, n in zip(box.start, extent, strict=True))
    return Box((z, y, x), box.stop)
