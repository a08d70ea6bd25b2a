"""Verification of coarse levels: every shard against its receipt, and the manifest against all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vemdiffuse_pipe.errors import CorruptDataError, MissingDataError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.output.description import describe
from vemdiffuse_pipe.output.levels import image_of, takes_levels
from vemdiffuse_pipe.output.manifest import MAX_BYTES, NAME, Handoff
from vemdiffuse_pipe.output.run_output import RunOutput
from vemdiffuse_pipe.records.receipts import checksum, read_receipts
from vemdiffuse_pipe.records.shards import ShardSet, Work
from vemdiffuse_pipe.running import stages
from vemdiffuse_pipe.running.levels.level_job import LevelJob
from vemdiffuse_pipe.running.levels.pyramid import level_job
from vemdiffuse_pipe.running.shard_check import compare_shards
from vemdiffuse_pipe.storage import objects
from vemdiffuse_pipe.storage.source import find_volume


@dataclass(frozen=True, slots=True)
class WrongLevel:
    """Shards of one coarse level that are not as their receipts say, or have none."""

    job: LevelJob
    """What makes the level."""
    shards: tuple[int, ...]
    """Linear indices, ascending."""

    @property
    def path(self) -> str:
        """The level's array, relative to the output."""
        return f"{self.job.image.name}/{self.job.image.level_name(self.job.level)}"

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The shards, in voxels of the level, zyx."""
        return tuple(self.job.shards.box(shard) for shard in self.shards)


def wrong_levels(run: RunOutput) -> list[WrongLevel]:
    """Coarse levels that the images of `run` name, and that have wrong shards; finer ones first."""
    if not takes_levels(run):
        return []
    checked = (WrongLevel(job, tuple(_wrong_shards(job))) for job in _named_levels(run))
    return [level for level in checked if level.shards]


def make_again(level: WrongLevel) -> None:
    """Make each wrong shard from the level below, which must be right, and give it a receipt."""
    context = stages.open_worker_context(level.job)
    for shard, box in zip(level.shards, level.boxes, strict=True):
        work = Work(shard, box)
        stages.write(context, stages.compute(context, stages.read(context, work)))
    context.close()


def is_manifest_right(run: RunOutput) -> bool:
    """True where every level that handoff.json names is there with the checksum that it states.

    Also where there is no handoff.json, as in older outputs; and where a shard has two receipts, which may
    state different checksums: then nothing says which of them the file was made from. Raises DataError or
    TransientError.
    """
    stored = objects.read_bytes(run.address / NAME, MAX_BYTES)
    if stored is None:
        return True
    try:
        named = _checksums(Handoff.model_validate_json(stored))
    except ValueError:
        return False
    return named.items() <= _checksums(describe(run)).items() or _has_two_receipts_of_a_shard(run)


def _has_two_receipts_of_a_shard(run: RunOutput) -> bool:
    seen = ShardSet(run.shards)
    for _, receipt in read_receipts(run.records, run.digest):
        if any(shard in seen for shard in receipt.shards):
            return True
        for shard in receipt.shards:
            seen.add(shard)
    return False


def _named_levels(run: RunOutput) -> Iterator[LevelJob]:
    for name in run.sink.arrays:
        n_levels = len(find_volume(run.address / name).levels)
        yield from (level_job(run, image_of(run, name), level) for level in range(1, n_levels))


def _wrong_shards(job: LevelJob) -> list[int]:
    reader, name = job.image.open_level(job.level).reader, job.image.name

    def holds(box: Box, sums: Mapping[str, str]) -> bool:
        try:
            return {name: checksum(reader.read(box))} == sums
        except (MissingDataError, CorruptDataError):
            return False

    receipts = (receipt for _, receipt in read_receipts(job.records, job.digest))
    right, _ = compare_shards(job.shards, receipts, holds)
    return [shard for shard in range(job.shards.n_blocks) if shard not in right]


def _checksums(handoff: Handoff) -> dict[str, str]:
    return {level.path: level.checksum for array in handoff.arrays.values() for level in array.levels}
