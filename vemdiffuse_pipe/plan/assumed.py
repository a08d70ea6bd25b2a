"""A source that is not opened: what the run file says of it, to plan on paper and to check later."""

from __future__ import annotations

from fractions import Fraction

from vemdiffuse_pipe.config import SourceTable
from vemdiffuse_pipe.errors import PlanError, SourceError
from vemdiffuse_pipe.geometry.frame import Frame, exact_nm, show_nm
from vemdiffuse_pipe.volume import VolumeSpec

ASSUMED = "assumed"  # in place of a format
TOLERANCE = Fraction(1, 10**6)  # metadata write 4.6 as 4.6000000000000005


def assumed_spec(table: SourceTable) -> VolumeSpec:
    """The source as [source.assume] has it. Raises PlanError where it says nothing, or too little."""
    assumed = table.assume
    if assumed is None:
        raise PlanError(
            "planning offline needs to know what the source is: [source.assume] with shape, "
            "voxel_size_nm, chunk_shape and dtype"
        )
    if table.region_nm is not None:
        raise PlanError(
            "region_nm needs to know where the source lies in its world, which is not assumed; offline give "
            "region, in voxels of the source"
        )
    return VolumeSpec(
        url=table.url,
        format=ASSUMED,
        frame=Frame(assumed.shape, exact_nm(assumed.voxel_size_nm)),
        dtype=assumed.dtype,
        chunk_shape=assumed.chunk_shape,
        shard_shape=assumed.chunk_shape,
        level=table.level or ASSUMED,
    )


def check_assumed(table: SourceTable, found: VolumeSpec) -> None:
    """Raises SourceError that lists what is assumed of the source and not so."""
    assumed = table.assume
    if assumed is None:
        return
    pairs = {
        "shape": (assumed.shape, found.shape),
        "chunk_shape": (assumed.chunk_shape, found.chunk_shape),
        "dtype": (assumed.dtype, found.dtype),
    }
    wrong = [
        f"{name} is {actual}, not {stated}" for name, (stated, actual) in pairs.items() if stated != actual
    ]
    size_nm, found_nm = exact_nm(assumed.voxel_size_nm), found.frame.voxel_size_nm
    if any(abs(a - b) > TOLERANCE * b for a, b in zip(size_nm, found_nm, strict=True)):
        wrong.append(f"voxel_size_nm is {show_nm(found_nm)}, not {show_nm(size_nm)}")
    if wrong:
        raise SourceError(
            f"{found.url} is not what [source.assume] says: {'; '.join(wrong)}; correct that table, or "
            "leave it out"
        )
