"""A part of an output, given in nanometres."""

from __future__ import annotations

from math import ceil, floor

from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import Nm, show_nm
from vemdiffuse_pipe.storage import open_sink


def box_of_region_nm(output: str, start_nm: Nm, stop_nm: Nm) -> Box:
    """The smallest box of voxels of `output` that holds the part of space from `start_nm` to `stop_nm`, zyx.

    It is cut at the volume. Raises PlanError where the two share nothing, OutputError without an output.
    """
    frame = open_sink(output).spec.frame
    axes = list(zip(start_nm, stop_nm, frame.corner_nm, frame.voxel_size_nm, strict=True))
    z, y, x = (floor((a - c) / s) for a, _, c, s in axes)
    z_stop, y_stop, x_stop = (ceil((e - c) / s) for _, e, c, s in axes)
    box = Box((z, y, x), (z_stop, y_stop, x_stop)).intersect(frame.box)
    if box.is_empty:
        raise PlanError(
            f"the region from {show_nm(start_nm)} to {show_nm(stop_nm)} nm holds no voxel of {output}, which "
            f"begins at {show_nm(frame.corner_nm)} nm and has {frame.shape} voxels of "
            f"{show_nm(frame.voxel_size_nm)} nm, z y x"
        )
    return box
