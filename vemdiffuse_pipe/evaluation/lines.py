"""Texture of generated planes against that of measured sections: line artefacts need no truth to be seen.

A network that learnt on xz planes, whose rows are coarse, may draw rows like those where it works on xy
sections: fine lines across the axis that it was trained along. Measured sections say how much fine texture
there should be along each axis, whatever is in them; generated planes are held against that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.evaluation.spectrum import upper_energy
from vemdiffuse_pipe.volume import Voxels


def line_score(planes: Sequence[Voxels], sections: Sequence[Voxels], axis: int) -> float:
    """Mean energy in the upper half of the spectrum of planes along an axis, over that of sections.

    1: as much fine texture as the sections have; more is lines, less is blur. `planes`, `sections`: (row,
    column) uint8 of equal sizes; `axis`: 0 across rows, 1 along them. inf where sections have none and
    planes do. Raises ConfigError where one of the two is empty.
    """
    if not planes or not sections:
        raise ConfigError("a line score of no planes or no sections; at least one of each is needed")
    generated, measured = (_mean_energy(images, axis) for images in (planes, sections))
    if measured == 0:
        return 1.0 if generated == 0 else math.inf
    return generated / measured


def _mean_energy(images: Iterable[Voxels], axis: int) -> float:
    energies = [upper_energy([image], axis) / image.size for image in images]
    return sum(energies) / len(energies)
