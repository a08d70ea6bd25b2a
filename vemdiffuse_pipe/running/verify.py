"""Verification of an output: every shard against its receipt, and some places rendered again."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil

import numpy as np

from vemdiffuse_pipe.errors import CorruptDataError, MissingDataError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.models.device import device_here
from vemdiffuse_pipe.output.description import write_manifest
from vemdiffuse_pipe.output.mask import read_outside
from vemdiffuse_pipe.output.measurements import plan_of
from vemdiffuse_pipe.output.preparation import open_run_model, prepare
from vemdiffuse_pipe.output.provenance import write_filled_provenance
from vemdiffuse_pipe.output.run_output import RunOutput, check_is_of, open_run_output
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.records.receipts import Receipt, checksum, read_receipts
from vemdiffuse_pipe.records.shards import ShardSet, Work
from vemdiffuse_pipe.render.block import Hardware, render_block
from vemdiffuse_pipe.running import stages
from vemdiffuse_pipe.running.levels.check import is_manifest_right, make_again, wrong_levels
from vemdiffuse_pipe.running.render_job import RenderJob
from vemdiffuse_pipe.running.shard_check import compare_shards
from vemdiffuse_pipe.running.stages import open_worker_context
from vemdiffuse_pipe.survey.kept_sections import read_kept
from vemdiffuse_pipe.volume import Sink, Source, Voxels

PROBE_PX = 256


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a verification."""

    n_shards: int
    """Shards of the output."""
    n_missing: int
    """Shards without a receipt."""
    wrong: tuple[Box, ...]
    """Shards that are missing, cannot be decoded, or hold other voxels than their receipt says; output
    zyx.
    """
    n_rendered: int
    """Places that were rendered again."""
    n_different: int
    """Places that came out different."""
    n_skipped: int = 0
    """Shards outside the mask."""
    wrong_in_levels: Mapping[str, tuple[Box, ...]] = field(default_factory=dict)
    """The same of coarser levels, by path ("em/1"), in voxels of the level."""
    is_manifest_right: bool = True
    """Whether handoff.json states the checksums of what is stored."""

    @property
    def is_good(self) -> bool:
        """True where every shard of every level is stored and right, and every place rendered the same."""
        is_bad = self.n_missing or self.wrong or self.n_different or self.wrong_in_levels
        return self.is_manifest_right and not is_bad


def verify(
    output: str | RunOutput, *, n_rendered: int = 3, seed: int = 0, repair: bool = False
) -> Verification:
    """Check all that is stored at `output`, and render `n_rendered` places of it again.

    `repair`: shards that are wrong are rendered and written again first, those of coarser levels are made
    again from the level below; the result is of the repaired output.

    A place is at most one gap of a stored shard, 256 px wide: `seed` chooses. Raises OutputError where there
    is no such output, SourceError and ModelError where what it was made from is gone.

    Example:

        >>> from vemdiffuse_pipe import verify
        >>> verify("isotropic.zarr", n_rendered=1).is_good
        True
    """
    output = output if isinstance(output, RunOutput) else open_run_output(output)
    right, wrong, devices = _compare(output)
    if repair and wrong:
        _write_again(output, right.grid, wrong)
        output = open_run_output(output.url)  # what was read of the wrong shards may be cached
        right, wrong, devices = _compare(output)
    if repair:
        _repair_levels(output)
    shards = right.grid
    outside = read_outside(output.records, shards)
    n_skipped = len(outside | right) - len(right) - sum(shard in outside for shard in wrong)
    chance = random.Random(seed)  # noqa: S311
    different = _render_again(output, right, devices, n_rendered, chance) if len(right) else []
    return Verification(
        n_shards=shards.n_blocks,
        n_missing=shards.n_blocks - len(right) - len(wrong) - n_skipped,
        wrong=tuple(shards.box(shard) for shard in sorted(wrong)),
        n_rendered=len(different),
        n_different=sum(different),
        n_skipped=n_skipped,
        wrong_in_levels={level.path: level.boxes for level in wrong_levels(output)},
        is_manifest_right=is_manifest_right(output),
    )


def _compare(output: RunOutput) -> tuple[ShardSet, set[int], set[str]]:
    """Shards that are as a receipt says, those that are as none says, and the devices of the receipts."""
    devices, sink = set[str](), output.sink

    def receipts() -> Iterator[Receipt]:
        for _, receipt in read_receipts(output.records, output.digest):
            devices.add(receipt.device)
            yield receipt

    right, wrong = compare_shards(output.shards, receipts(), lambda box, sums: _holds(sink, box, sums))
    return right, wrong, devices


def _write_again(output: RunOutput, shards: BlockGrid, wrong: set[int]) -> None:
    """Render and write each wrong shard, one at a time, with a receipt of its own."""
    source, plan = _prepared(output)
    job = RenderJob(plan, Hardware(plan.run_file.run.device), source, output=output)
    context = open_worker_context(job)
    for shard in sorted(wrong):
        work = Work(plan.blocks.index_of(shards.box(shard).start), shards.box(shard))
        stages.write(context, stages.compute(context, stages.read(context, work)))
    context.close()
    write_filled_provenance(output, plan)


def _repair_levels(output: RunOutput) -> None:
    for level in wrong_levels(output):
        make_again(level)
    if not is_manifest_right(output):
        write_manifest(output)


def _prepared(output: RunOutput) -> tuple[Source, Plan]:
    """The source and the plan that made the output. Raises OutputError where they would make another one."""
    source, plan = prepare(output.run_file)
    plan = plan_of(output, plan)
    check_is_of(output, plan)
    return source, plan


def _holds(sink: Sink, shard_box: Box, checksums: Mapping[str, str]) -> bool:
    try:
        return {array: checksum(sink.read(array, shard_box)) for array in sink.arrays} == checksums
    except (MissingDataError, CorruptDataError):
        return False


def _render_again(
    output: RunOutput, right: ShardSet, devices: set[str], n_places: int, chance: random.Random
) -> list[bool]:
    """For each place, whether it came out different. On a GPU, then or now, one grey level is allowed."""
    source, plan = _prepared(output)
    sink, model = output.sink, open_run_model(plan)
    device = plan.run_file.run.device
    tolerance = 0 if devices | {device_here(device)} == {"cpu"} else 1
    different = []
    for _ in range(n_places):
        box = _probe_box(plan, right.grid.box(right.member(chance.randrange(len(right)))), chance)
        sections = read_kept(source, plan.source_box(box), plan.gaps.rejected)
        arrays = render_block(plan, model, sections, box, Hardware(device))
        differences = (_largest_difference(voxels, sink.read(name, box)) for name, voxels in arrays.items())
        different.append(max(differences) > tolerance)
    return different


def _probe_box(plan: Plan, shard_box: Box, chance: random.Random) -> Box:
    """A part of a shard that is quickly rendered: the planes of about one gap, at most 256 px wide."""
    size = (ceil(plan.gaps.r) + 1, PROBE_PX, PROBE_PX)
    z, y, x = (
        chance.randrange(start, max(start + 1, stop - n + 1))
        for start, stop, n in zip(shard_box.start, shard_box.stop, size, strict=True)
    )
    return Box.of_shape(size, (z, y, x)).intersect(shard_box)


def _largest_difference(ours: Voxels, theirs: Voxels) -> int:
    return int(np.abs(ours.astype(np.int16) - theirs).max())
