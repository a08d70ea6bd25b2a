"""Reading what is used of a source: rejected sections are never asked for."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.volume import OnHole, Source, Voxels, ignore_hole


def read_kept(
    source: Source, source_box: Box, rejected: tuple[int, ...], on_hole: OnHole = ignore_hole
) -> Voxels:
    """The voxels of a box; rejected sections, which may be unreadable, are left 0 and never asked for."""
    first, stop = source_box.start[0], source_box.stop[0]
    skipped = [section for section in rejected if first <= section < stop]
    if not skipped:
        return source.read(source_box, on_hole)
    voxels = np.zeros(source_box.shape, np.uint8)
    for before, after in pairwise((first - 1, *skipped, stop)):
        run = Box((before + 1, *source_box.start[1:]), (after, *source_box.stop[1:]))
        if not run.is_empty:
            voxels[before + 1 - first : after - first] = source.read(run, on_hole)
    return voxels
