"""The stages of a block in one process, whatever the job: read, compute, store, write its receipt.

    read             coordinates in, what the block needs out      I/O
    compute          its arrays                                    holds the GPU
    store            whole shards                                  I/O
    write_receipt    after the shards are durable                  I/O

Only the stage that failed for a transient reason is repeated: what was read or computed is not lost.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.cluster.hosts import device_name, job_id, peak_gpu_bytes
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.records.events import AttemptFailed, Listener, to_all
from vemdiffuse_pipe.records.journal import Journal
from vemdiffuse_pipe.records.receipts import FOLDER, Receipt, checksum
from vemdiffuse_pipe.records.segments import SegmentWriter
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.running.job import Arrays, BlockJob, BlockStages, Checksums, Loaded
from vemdiffuse_pipe.storage import stores
from vemdiffuse_pipe.storage.retry import RetryPolicy, with_retries
from vemdiffuse_pipe.storage.stores import Traffic
from vemdiffuse_pipe.volume import Sink

T = TypeVar("T")


class _Meter:
    """Traffic with the stores since the last call: counters are of the process, receipts of a block."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._last = Traffic(0, 0)

    def take(self) -> Traffic:
        """All that was counted since the last call."""
        with self._lock:
            last, self._last = self._last, stores.traffic()
            return Traffic(*(now - before for now, before in zip(self._last, last, strict=True)))


_METER = _Meter()


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """A job that is open in this process, and what the process writes about it."""

    job: BlockJob
    """What is done."""
    stages: BlockStages
    """The job's own part of the stages."""
    receipts: SegmentWriter
    """Receipts of this process."""
    journal: Journal
    """Heartbeats and events of this process."""
    emit: Listener
    """Receives what happens inside a block."""
    retry_policy: RetryPolicy = RetryPolicy()  # noqa: RUF009 (frozen)
    """How often a stage is repeated."""

    def close(self) -> None:
        """Close what this process writes beside the voxels."""
        self.receipts.close()
        self.journal.close()


class Log(NamedTuple):
    """The cost of a block so far: seconds by stage, and attempts without success."""

    seconds: dict[str, float]
    n_failures: int = 0


class LoadedBlock(NamedTuple):
    """A block that is read."""

    work: Work
    loaded: Loaded
    log: Log


class ComputedBlock(NamedTuple):
    """A block that is computed. `loaded` has no arrays any more."""

    work: Work
    arrays: Arrays
    loaded: Loaded
    log: Log


class StoredBlock(NamedTuple):
    """A block that is durable, and has no receipt yet. It holds no voxels."""

    work: Work
    receipt: Receipt
    log: Log


def open_worker_context(
    job: BlockJob,
    retry_policy: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
    *,
    emit: Listener | None = None,
    journal: Journal | None = None,
) -> WorkerContext:
    """`job`, opened in this process. Raises InputError or TransientError.

    `emit`: receives what happens inside a block, else the journal does. `journal`: of this process, where it
    is open already.
    """
    journal = journal or open_journal(job)
    emit = emit or to_all(journal.on_event)
    return WorkerContext(
        job=job,
        stages=job.open(emit),
        receipts=SegmentWriter(job.records / FOLDER),
        journal=journal,
        emit=emit,
        retry_policy=retry_policy,
    )


def open_journal(job: BlockJob) -> Journal:
    """The journal of this process, for `job`."""
    return Journal(job.records, job.blocks.block_shape, device_name(job.device))


def read(context: WorkerContext, work: Work) -> LoadedBlock:
    """What the block needs."""
    loaded, log = _stage(context, "read", work, Log({}), lambda: context.stages.read(work))
    return LoadedBlock(work, loaded, log)


def compute(context: WorkerContext, block: LoadedBlock) -> ComputedBlock:
    """The arrays of the block."""
    work, loaded, log = block
    arrays, log = _stage(context, context.job.verb, work, log, lambda: context.stages.compute(work, loaded))
    facts = Loaded({}, loaded.bytes_read, loaded.filled_sections, loaded.n_voxels_filled, loaded.notes)
    return ComputedBlock(work, arrays, facts, log)


def write(context: WorkerContext, block: ComputedBlock) -> None:
    """Write the block's shards and then, when they are durable, its receipt."""
    write_receipt(context, store(context, block))


def store(context: WorkerContext, block: ComputedBlock) -> StoredBlock:
    """Write the block's shards."""
    work, arrays, loaded, log = block
    checksums, log = _stage(context, "write", work, log, lambda: context.stages.write(work, arrays))
    return StoredBlock(work, _receipt(context, work, checksums, loaded, log), log)


def write_receipt(context: WorkerContext, block: StoredBlock) -> None:
    """Write the receipt of what is stored."""
    record = block.receipt.as_record()
    _stage(context, "receipt", block.work, block.log, lambda: context.receipts.append(record))


def write_shards(sink: Sink, shards: BlockGrid, box: Box, arrays: Arrays) -> Checksums:
    """Write all arrays of a block, and meanwhile sum up their shards: checksums by array, one a shard.

    Each array is written in one call: the store cuts it into shards and compresses them in parallel.
    """
    with ThreadPoolExecutor(max(1, len(arrays))) as pool:
        writes = [pool.submit(sink.write, name, box, voxels) for name, voxels in arrays.items()]  # type: ignore[arg-type]
        checksums = {name: shard_checksums(shards, box, voxels) for name, voxels in arrays.items()}
        for written in writes:
            written.result()
    return checksums


def shard_checksums(shards: BlockGrid, box: Box, voxels: NDArray[np.generic]) -> tuple[str, ...]:
    """One checksum for each shard of `box`, in the order of `shards.touching`; `voxels` have its shape."""
    boxes = (shards.box(shard).relative_to(box.start) for shard in shards.touching(box))
    return tuple(checksum(voxels[shard_box.slices]) for shard_box in boxes)


def _receipt(context: WorkerContext, work: Work, checksums: Checksums, loaded: Loaded, log: Log) -> Receipt:
    traffic, job = _METER.take(), context.job
    return Receipt(
        digest=job.digest,
        shards=tuple(job.shards.touching(work.output_box)),
        checksums=checksums,
        output_box=work.output_box,
        seconds=log.seconds,
        n_attempts=1 + log.n_failures,
        bytes_read=loaded.bytes_read,
        n_requests_failed=traffic.n_requests_failed,
        bytes_fetched=traffic.bytes_fetched,
        filled_sections=loaded.filled_sections,
        n_voxels_filled=loaded.n_voxels_filled,
        peak_bytes=peak_bytes(),
        host=socket.gethostname(),
        device=device_name(job.device),
        job=job_id(),
        peak_gpu_bytes=peak_gpu_bytes(job.device),
        notes=loaded.notes,
        pid=os.getpid(),
        time=time.time(),
    )


def _stage(context: WorkerContext, name: str, work: Work, log: Log, stage: Callable[[], T]) -> tuple[T, Log]:
    """`stage()` with retries, and the log with its seconds and failures."""
    failures = 0

    def on_failure(reason: str) -> None:
        nonlocal failures
        failures += 1
        context.emit(AttemptFailed(work.block_index, reason, failures, name))

    started = time.perf_counter()
    with context.journal.working_on(work.block_index):
        result = with_retries(stage, context.retry_policy, on_failure)
    seconds = {**log.seconds, name: time.perf_counter() - started}
    return result, Log(seconds, log.n_failures + failures)


def peak_bytes() -> int:
    """Most memory that this process has held so far: resident bytes.

    Linux: from /proc, because getrusage there includes the process that started this one.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
