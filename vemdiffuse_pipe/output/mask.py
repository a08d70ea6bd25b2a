"""Which shards a mask leaves out: found once, when an output is created, and kept beside its receipts.

    mask        0 0 0 0 0 7 7 0          in the world, whatever its voxels are
    shards      |  0  |  1  |  2  |      shard 0 is outside: never read, never rendered, never written

A shard is wanted where any voxel of the mask that it shares space with is not 0; beyond the mask none is. By
shards and not by blocks, so that the shape of blocks decides about no voxel. A mask changes no voxel, only
which of them there are: it is no part of the digest, and an output keeps the mask that it was created with.
"""

from __future__ import annotations

import zlib
from fractions import Fraction
from functools import partial
from itertools import pairwise
from math import ceil, floor

import numpy as np
import xxhash

from vemdiffuse_pipe.errors import OutputError, PlanError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import Frame, show_nm
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.output.run_output import RunOutput, create_run_output
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.records.folder import records_of
from vemdiffuse_pipe.records.shards import Flags, ShardSet
from vemdiffuse_pipe.storage import Address, objects, open_mask, parse_address
from vemdiffuse_pipe.storage.retry import RetryPolicy, with_retries
from vemdiffuse_pipe.volume import Source

FILE = "outside"  # of the records
MAX_VOXELS = 1 << 24  # of the mask, read at once

Span = tuple[int, int]


def open_run_mask(plan: Plan) -> Source | None:
    """The mask of a plan, if it has one.

    Raises SourceError; PlanError where it shares no space with the output.
    """
    table = plan.run_file.mask
    if table is None:
        return None
    mask = open_mask(table.url, voxel_size_nm=table.voxel_size_nm, level=table.level)
    frame = mask.spec.frame
    spans = (_span(plan.output, frame, axis, 0, plan.output.shape[axis]) for axis in range(3))
    if any(stop <= first for first, stop in spans):
        raise PlanError(
            f"mask {mask.spec.url} shares no space with the output: it begins at "
            f"{show_nm(frame.corner_nm)} nm and has {frame.shape} voxels of "
            f"{show_nm(frame.voxel_size_nm)} nm, z y x; the output begins at "
            f"{show_nm(plan.output.corner_nm)} nm"
        )
    return mask


def start_output(plan: Plan, output: RunOutput | None = None) -> RunOutput:
    """Open or create the output of a plan, and write what its mask leaves out. Many processes may at once.

    `output`: where it is open already.
    Raises what `create_run_output`, `open_run_mask` and `write_outside` raise.
    """
    mask = None if is_outside_known(plan) else open_run_mask(plan)  # before anything is written
    output = create_run_output(plan, output)
    write_outside(plan, mask)
    return output


def write_outside(plan: Plan, mask: Source | None) -> None:
    """Write beside the receipts which shards `mask` leaves out, unless that is known. One bit a shard.

    Many processes may do so at once: they write the same. Raises OutputError, DataError, TransientError.
    """
    if mask is not None and not is_outside_known(plan):
        objects.write_bytes_atomically(_address(plan), _encoded(find_outside(plan, mask)))


def is_outside_known(plan: Plan) -> bool:
    """True where it is stored already what is outside: the mask is not needed any more."""
    return objects.read_bytes(_address(plan), 1) is not None


def _address(plan: Plan) -> Address:
    return records_of(parse_address(plan.run_file.output.url)) / FILE


def read_outside(records: Address, shards: BlockGrid) -> ShardSet:
    """The shards of an output that its mask leaves out; none where it has no mask. Raises OutputError."""
    data = objects.read_bytes(records / FILE)
    if data is None:
        return ShardSet(shards)
    check, _, packed = data.partition(b"\n")
    if check != _check(packed):
        raise OutputError(f"{records / FILE} is damaged; remove it, and rerun to write it anew")
    unpacked = zlib.decompressobj().decompress(packed, -(-shards.n_blocks // 8) + 1)
    return ShardSet.of_bits(shards, unpacked)


def find_outside(plan: Plan, mask: Source, max_voxels: int = MAX_VOXELS) -> ShardSet:
    """The shards that share no space with a voxel of `mask` that is not 0.

    Memory: `max_voxels` of the mask.
    """
    shards, outside = plan.shards, ShardSet(plan.shards)
    z, y, x = (_spans(plan.output, shards, mask.spec.frame, axis) for axis in range(3))
    for layer, sections in enumerate(z):
        outside.add_layer(layer, ~_wanted(mask, sections, y, x, max_voxels))
    return outside


def _wanted(mask: Source, sections: Span, rows: list[Span], columns: list[Span], max_voxels: int) -> Flags:
    """Which shards of a layer, or of a part of it, the mask wants: (rows, columns)."""
    (y, y_stop), (x, x_stop) = _hull(rows), _hull(columns)
    n_px = (y_stop - y) * (x_stop - x)
    if n_px > max_voxels and len(rows) * len(columns) > 1:
        if len(rows) > 1:
            parts = (rows[: len(rows) // 2], rows[len(rows) // 2 :])
            return np.concatenate([_wanted(mask, sections, part, columns, max_voxels) for part in parts])
        halves = (columns[: len(columns) // 2], columns[len(columns) // 2 :])
        return np.concatenate([_wanted(mask, sections, rows, half, max_voxels) for half in halves], axis=1)
    plane = np.zeros((y_stop - y, x_stop - x), np.bool_)
    depth = max(1, max_voxels // max(1, n_px))
    for first, stop in pairwise([*range(*sections, depth), sections[1]] if n_px else []):
        box = Box((first, y, x), (stop, y_stop, x_stop))
        plane |= with_retries(partial(mask.read, box), RetryPolicy(), lambda reason: None).any(axis=0)
    in_rows = np.array([plane[a - y : b - y].any(axis=0) for a, b in rows])
    return np.array([in_rows[:, a - x : b - x].any(axis=1) for a, b in columns]).T


def _hull(spans: list[Span]) -> Span:
    """From the first to the last of what is not empty; (0, 0) where all is."""
    filled = [span for span in spans if span[0] < span[1]]
    return (filled[0][0], filled[-1][1]) if filled else (0, 0)


def _spans(output: Frame, shards: BlockGrid, mask: Frame, axis: int) -> list[Span]:
    """For each shard along `axis`, the voxels of the mask that it shares space with; none beyond the mask."""
    n, step = output.shape[axis], shards.block_shape[axis]
    return [_span(output, mask, axis, start, min(n, start + step)) for start in range(0, n, step)]


def _span(output: Frame, mask: Frame, axis: int, start: int, stop: int) -> Span:
    """[first, stop) of the voxels of the mask along `axis` that share space with those of the output."""

    def mask_voxel(voxel: int) -> Fraction:
        at_nm = output.corner_nm[axis] + voxel * output.voxel_size_nm[axis]
        return (at_nm - mask.corner_nm[axis]) / mask.voxel_size_nm[axis]

    first = max(0, floor(mask_voxel(start)))
    return first, max(first, min(mask.shape[axis], ceil(mask_voxel(stop))))


def _encoded(outside: ShardSet) -> bytes:
    packed = zlib.compress(outside.bits)
    return _check(packed) + b"\n" + packed


def _check(packed: bytes) -> bytes:
    return xxhash.xxh3_64_hexdigest(packed).encode()
