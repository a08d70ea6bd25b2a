"""Anisotropic sections from an isotropic truth, in three ways. Never mix their figures.

planes of the truth    0   1   2   3   4   5   6   7   8   9  10        r = 5
dropped                |                   |                   |        section u is plane 5 u
averaged              [---- 0 ----]       [---- 1 ----]                 section u is planes 5 u .. 5 u + 4
                              |                   |                     its centre: plane 5 u + 2
thick                  as averaged, and the planes of the truth are means of 5 planes too
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.volume import Voxels

Degradation = Literal["dropped", "averaged", "thick"]


@dataclass(frozen=True, slots=True)
class Degraded:
    """Sections and the ground truth of their reconstruction; uint8, zyx.

    Plane u * r of `truth` lies where the centre of section u lies: (M - 1) * r + 1 planes for M sections.
    `section_planes`: how many planes thick a section is. `is_thin`: planes of the truth are one thick.
    """

    sections: Voxels
    truth: Voxels
    r: int
    section_planes: int = 1
    is_thin: bool = True

    @property
    def generated(self) -> list[int]:
        """The planes between the sections: those that count."""
        return [z for z in range(len(self.truth)) if z % self.r]


def degrade(volume: Voxels, r: int, degradation: Degradation) -> Degraded:
    """As many sections as `volume` gives at ratio r, and the part of it that they span.

    dropped: section u is plane u * r, and the planes between are not seen. averaged: a section is as thick
    as r planes, a box centred on plane u * r + r // 2: its r planes where r is odd; where r is even, r - 1
    planes and half of the plane on either side, so that the centre is a plane of the truth for every r and
    the truth need not be resampled. thick: the same, and every plane of the truth is such a mean, as if the
    microscope had cut it there. A mean is rounded to a grey level. Raises ConfigError for fewer than two
    sections.
    """
    reach = 0 if degradation == "dropped" else r // 2
    n = (len(volume) - 1 - 2 * reach) // r + 1
    if n < 2:
        raise ConfigError(
            f"{len(volume)} planes at ratio {r}, {degradation}, give fewer than 2 sections; "
            f"at least {r + 1 + 2 * reach} planes are needed"
        )
    truth = volume[reach : reach + (n - 1) * r + 1]
    if degradation == "dropped":
        return Degraded(truth[::r], truth, r)
    if degradation == "thick":
        thick = np.stack([_thick(volume, z, r) for z in range(len(truth))])
        return Degraded(thick[::r], thick, r, section_planes=r, is_thin=False)
    sections = np.stack([_thick(volume, u * r, r) for u in range(n)])
    return Degraded(sections, truth, r, section_planes=r)


def _thick(volume: Voxels, first: int, r: int) -> Voxels:
    """The mean of r planes from `first` on; where r is even, of r + 1, the outermost two counted half."""
    weights: NDArray[np.float64] = np.full(2 * (r // 2) + 1, 1 / r)
    if r % 2 == 0:
        weights[[0, -1]] /= 2
    return to_grey(np.einsum("w,wyx->yx", weights, volume[first : first + len(weights)]))
