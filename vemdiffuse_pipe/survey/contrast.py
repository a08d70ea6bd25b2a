"""How bright and how contrasted a volume is: what a trained model must know before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import islice, product

import numpy as np

from vemdiffuse_pipe.errors import CorruptDataError, MissingDataError, SourceError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.volume import Source, Voxels

WINDOW_PX = 512
WINDOWS = ((3, 3), (1, 1), (1, 3), (1, 5), (3, 1), (3, 5), (5, 1), (5, 3), (5, 5))
MIN_SHARE = 0.25
SECTIONS_TRIED = 4


def measure_contrast(source: Source, rejected: Sequence[int] = ()) -> tuple[float, float]:
    """Mean and standard deviation of the grey levels, each rounded to 1e-3. A rule without chance.

    Of the sections at 1/6, 1/2 and 5/6 of the depth, or the next ones that are not `rejected` and can be
    read, the first window of at most 512 x 512 px with tissue: in the middle, else around it. Levels 0 and
    255 are left out, being padding or saturation more often than tissue; a window has tissue where they
    leave a quarter. Raises SourceError where nowhere is tissue, TransientError.
    """
    shape = source.spec.shape
    windows = [_tissue_near(source, shape[0] * part // 6, rejected) for part in (1, 3, 5)]
    tissue = np.concatenate(windows).astype(np.float64)
    if not tissue.size:
        raise SourceError(
            f"{source.spec.url} is black or white wherever it was looked at; state its mean and deviation: "
            "contrast = [128.0, 30.0]"
        )
    mean, deviation = (round(float(v), 3) for v in (tissue.mean(), tissue.std()))
    return mean, deviation or 1.0


def _tissue_near(source: Source, section: int, rejected: Sequence[int]) -> Voxels:
    """Grey levels of the first window with tissue of `section`, or of the next ones; none after a few."""
    n_sections = source.spec.shape[0]
    kept = (u for u in range(section, n_sections) if u not in rejected)
    for u, place in product(islice(kept, SECTIONS_TRIED), WINDOWS):
        with suppress(MissingDataError, CorruptDataError):
            voxels = source.read(_window(source.spec.shape, u, place))
            inside = voxels[(voxels > 0) & (voxels < 255)]
            if inside.size >= MIN_SHARE * voxels.size:
                return inside
    return np.empty(0, np.uint8)


def _window(shape: Zyx, section: int, place: tuple[int, int]) -> Box:
    """The window at `place` in sixths of what is left beside it: (3, 3) is the middle."""
    y, x = ((n - min(n, WINDOW_PX)) * part // 6 for n, part in zip(shape[1:], place, strict=True))
    return Box.of_shape((1, min(shape[1], WINDOW_PX), min(shape[2], WINDOW_PX)), (section, y, x))
