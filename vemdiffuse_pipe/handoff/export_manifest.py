"""handoff.json of an export: the same schema as an output's, and what exporting changed."""

from __future__ import annotations

import numpy as np

from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.handoff.export_job import VOXELS, ExportJob
from vemdiffuse_pipe.output.description import n_missing_blocks
from vemdiffuse_pipe.output.manifest import (
    NAME,
    Array,
    Exported,
    Handoff,
    Level,
    advice,
    encode,
    level_checksums,
    level_of,
    meaning_of,
    planes_of,
)
from vemdiffuse_pipe.output.run_output import RunOutput
from vemdiffuse_pipe.output.snippets import SNIPPETS
from vemdiffuse_pipe.records.receipts import read_receipts
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.running.job import BlockJob
from vemdiffuse_pipe.running.levels.level_job import LevelJob
from vemdiffuse_pipe.storage import objects
from vemdiffuse_pipe.storage.address import Address

MAX_COMPARED = 64  # blocks of a lossy export, spread over the volume


def write_export_manifest(
    run: RunOutput,
    folder: Address,
    image_format: str,
    levels: tuple[Level, ...],
    exported: Exported,
    job: ExportJob,
) -> None:
    """Put handoff.json into `folder`. Raises DataError, TransientError, OutputError, StorageFullError."""
    z, stop = job.box.start[0], job.box.stop[0]
    array = Array(
        path=".",
        format=image_format,
        dtype=job.destination.dtype,
        meaning=meaning_of(job.array),
        levels=levels,
    )
    segment, trust = advice((job.array,), run.identity)
    handoff = Handoff(
        is_complete=n_missing_blocks(run) == 0,
        arrays={job.array: array},
        planes=planes_of(run.sink.provenance[z:stop]),
        run=dict(run.identity),
        digest=run.digest,
        segment=segment,
        trust=trust,
        readers=_readers(image_format),
        untested_readers=(),
        exported=exported,
    )
    objects.write_bytes_atomically(folder / NAME, encode(handoff))


def first_level(job: ExportJob, path: str, frame: Frame) -> Level:
    """Level 0 of an export, with the checksum of what was read back."""
    return level_of(path, frame, _checksum(job, job.array))


def coarse_level(job: LevelJob) -> Level:
    """A coarser level of an export."""
    return level_of(
        job.image.level_name(job.level), job.image.level_frame(job.level), _checksum(job, job.image.name)
    )


def measured_loss(job: ExportJob) -> tuple[int, float, int]:
    """(largest, mean, n): by how many grey levels n voxels differ, those of at most 64 blocks, evenly spread.

    (0, 0.0, 0) where the destination is lossless: every block was compared when it was written.
    """
    if not job.destination.max_loss:
        return 0, 0.0, 0
    stages, n_blocks = job.open(lambda _: None), job.blocks.n_blocks
    largest, total, n = 0, 0, 0
    for block in np.linspace(0, n_blocks - 1, min(n_blocks, MAX_COMPARED)).round().astype(int).tolist():
        work = Work(block, job.blocks.box(block))
        wanted = stages.read(work).arrays[VOXELS].astype(np.int64)
        differences = np.abs(stages.made.reader.read(work.output_box).astype(np.int64) - wanted)
        largest, total = max(largest, int(differences.max())), total + int(differences.sum())
        n += differences.size
    return largest, total / n, n


def _checksum(job: BlockJob, array: str) -> str:
    receipts = (receipt for _, receipt in read_receipts(job.records, job.digest))
    return level_checksums(receipts, job.shards, (array,))[array]


def _readers(image_format: str) -> dict[str, str]:
    readers = {"vemdiffuse_pipe": SNIPPETS["vemdiffuse_pipe"]}
    if image_format == "precomputed":
        lines = SNIPPETS["cloud-volume"].splitlines()[1:]
        readers["cloud-volume"] = "\n".join(lines).replace("EXPORTED", "OUTPUT")
    return readers
