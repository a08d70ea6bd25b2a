"""The part of a volume that is wanted, and where it lies in the output of the whole.

    sections    0         1         2         3         4               (r = 4)
    planes      0 1 2 3 . 4 . . . . 8 . . . . 12. . . . 16
    asked for                  |---------|
    made                  [4 . . . . 8 . . . . 12]         from section to section: it holds what was asked

Only what is made changes: planes, tiles and noise are numbered as in the whole volume.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import Frame, Nm, show_nm


def whole_voxels(frame: Frame, first_nm: Nm, stop_nm: Nm) -> Box:
    """The smallest box of voxels of `frame` that holds the part of the world that is asked for.

    Cut at the volume. Raises PlanError where the two share nothing.
    """
    sizes = zip(frame.corner_nm, frame.shape, frame.voxel_size_nm, strict=True)
    ends = tuple(corner + n * size for corner, n, size in sizes)
    if any(
        a >= b or a >= end or b <= corner
        for a, b, corner, end in zip(first_nm, stop_nm, frame.corner_nm, ends, strict=True)
    ):
        raise PlanError(
            f"region_nm {show_nm(first_nm)} to {show_nm(stop_nm)}: the volume lies from "
            f"{show_nm(frame.corner_nm)} to {show_nm((ends[0], ends[1], ends[2]))} nm, z y x; give a box "
            "that it shares, the smaller corner first"
        )
    (z, y, x), (z_stop, y_stop, x_stop) = (
        tuple(rounded((at[axis] - frame.corner_nm[axis]) / frame.voxel_size_nm[axis]) for axis in range(3))
        for at, rounded in ((first_nm, floor), (stop_nm, ceil))
    )
    return Box((z, y, x), (z_stop, y_stop, x_stop)).intersect(frame.box)


def whole_sections(frame: Frame, first_nm: Nm, stop_nm: Nm) -> Box:
    """The smallest box of `frame` whose planes and pixels hold the part of the world that is asked for.

    Along z from the centre of a section to the centre of another: between them planes are made. Cut at the
    volume. Raises PlanError where the two share nothing.
    """
    box = whole_voxels(frame, first_nm, stop_nm)
    z, z_stop = _sections(frame, first_nm[0], stop_nm[0])
    return Box((z, *box.start[1:]), (z_stop, *box.stop[1:]))


def planes_of(sections: Box, r: int | Fraction, scale: int = 1) -> Box:
    """The voxels of the output that lie from the first to the last of `sections`, neither left out.

    Where no plane falls on a section, the next one outwards is the end. `scale`: pixels of the output for one
    of the source, along y and along x.
    """
    (z, y, x), (z_stop, y_stop, x_stop) = sections.start, sections.stop
    start = (floor(z * r), scale * y, scale * x)
    return Box(start, (ceil((z_stop - 1) * r) + 1, scale * y_stop, scale * x_stop))


def _sections(frame: Frame, first_nm: Fraction, stop_nm: Fraction) -> tuple[int, int]:
    """[first, stop) of the sections around, at least two where the volume has them."""
    centre, distance = frame.centre_nm[0], frame.voxel_size_nm[0]
    last = min(frame.shape[0] - 1, max(1, ceil((stop_nm - centre) / distance)))
    return max(0, min(last - 1, floor((first_nm - centre) / distance))), last + 1
