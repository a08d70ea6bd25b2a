"""The manifest of an output, made from what is stored: metadata, receipts, provenance."""

from __future__ import annotations

from collections.abc import Iterator

from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.output.levels import image_of, level_digest, level_records, takes_levels
from vemdiffuse_pipe.output.manifest import (
    NAME,
    Handoff,
    advice,
    array_of,
    encode,
    level_checksums,
    planes_of,
)
from vemdiffuse_pipe.output.mask import read_outside
from vemdiffuse_pipe.output.run_output import RunOutput
from vemdiffuse_pipe.output.snippets import SNIPPETS, UNTESTED
from vemdiffuse_pipe.records.receipts import Receipt, read_done, read_receipts
from vemdiffuse_pipe.records.shards import count_missing
from vemdiffuse_pipe.storage import objects
from vemdiffuse_pipe.storage.source import find_volume


def describe(run: RunOutput) -> Handoff:
    """What `run` holds now. Raises DataError or TransientError where it cannot be read."""
    spec, names = run.sink.spec, run.sink.arrays
    sums = level_checksums(_receipts(run), run.shards, names)
    arrays = {}
    for name in names:
        levels = [level.name for level in find_volume(run.address / name).levels]
        checksums = [sums[name], *_coarse_checksums(run, name, len(levels))]
        arrays[name] = array_of(name, spec.format.replace("zarr ", "zarr-"), spec.frame, checksums, levels)
    segment, trust = advice(names, run.identity)
    return Handoff(
        is_complete=n_missing_blocks(run) == 0,
        arrays=arrays,
        planes=planes_of(run.sink.provenance),
        run=dict(run.identity),
        digest=run.digest,
        segment=segment,
        trust=trust,
        readers=dict(SNIPPETS),
        untested_readers=UNTESTED,
    )


def n_missing_blocks(run: RunOutput) -> int:
    """Blocks that are wanted and not done."""
    done = read_done(run.records, run.digest, run.shards)
    return count_missing(run.blocks, done | read_outside(run.records, run.shards))


def write_manifest(run: RunOutput) -> None:
    """Put handoff.json, or replace it, as a whole. Raises as `describe`, OutputError, StorageFullError."""
    objects.write_bytes_atomically(run.address / NAME, encode(describe(run)))


def _coarse_checksums(run: RunOutput, name: str, n_levels: int) -> Iterator[str]:
    """Of levels 1 and on, which are complete."""
    if not takes_levels(run):
        return
    image = image_of(run, name)
    for level in range(1, n_levels):
        records = level_records(run, name, level)
        receipts = read_receipts(records, level_digest(run.digest, name, level))
        shards = BlockGrid(image.level_frame(level).shape, image.level_shards(level))
        yield level_checksums((receipt for _, receipt in receipts), shards, (name,))[name]


def _receipts(run: RunOutput) -> Iterator[Receipt]:
    return (receipt for _, receipt in read_receipts(run.records, run.digest))
