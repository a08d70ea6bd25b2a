"""What a worker does with a block: read, render, write. Everything that it needs is opened once a process.

    read        coordinates in, the sections of the block out     I/O
    render      its arrays                                        holds the resource GPU
    store       whole shards                                      I/O
    note        the receipt, after the shards are durable         I/O

A failure that may pass is met where it happens: only that stage is tried again, so what was read or
rendered is not lost.
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

from vemdiffuse_pipe.cluster.hosts import device_name, job_id, peak_gpu_bytes
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.models.protocol import Model
from vemdiffuse_pipe.output.opening import open_run_model
from vemdiffuse_pipe.plan.plan import Plan, digest
from vemdiffuse_pipe.records.events import AttemptFailed, Listener, PlanesDone, silent
from vemdiffuse_pipe.records.journal import Journal
from vemdiffuse_pipe.records.receipts import FOLDER, Receipt, checksum
from vemdiffuse_pipe.records.segments import SegmentWriter
from vemdiffuse_pipe.render.block import Hardware, render_block
from vemdiffuse_pipe.storage import open_sink, parse_address, stores
from vemdiffuse_pipe.storage.retry import RetryPolicy, with_retries
from vemdiffuse_pipe.storage.stores import Traffic
from vemdiffuse_pipe.survey.kept_sections import read_kept
from vemdiffuse_pipe.volume import Sink, Source, Voxels

T = TypeVar("T")


class _Meter:
    """What went over the stores since it was last asked: counters are of the process, receipts of a block."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._last = Traffic(0, 0)

    def taken(self) -> Traffic:
        """All that was counted since the last call."""
        with self._lock:
            last, self._last = self._last, stores.traffic()
            return Traffic(*(now - before for now, before in zip(self._last, last, strict=True)))


_METER = _Meter()


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """All that the stages need. `tell`: hears what happens inside a block, as it happens."""

    plan: Plan
    digest: str
    source: Source
    model: Model
    sink: Sink
    receipts: SegmentWriter
    hardware: Hardware
    retry_policy: RetryPolicy
    tell: Listener
    journal: Journal

    def close(self) -> None:
        """End what this process writes beside the voxels: receipts and journal."""
        self.receipts.close()
        self.journal.close()


class Log(NamedTuple):
    """What a block has cost so far. `n_failures`: attempts without success. `holes`: what was filled."""

    block_index: int
    seconds: dict[str, float]
    n_failures: int = 0
    bytes_read: int = 0
    holes: tuple[Box, ...] = ()


class Sections(NamedTuple):
    """What was read: the voxels of the source box of `output_box`."""

    output_box: Box
    voxels: Voxels
    log: Log


class Rendered(NamedTuple):
    """What is to be written: arrays by name, of the shape of `output_box`."""

    output_box: Box
    arrays: dict[str, Voxels]
    log: Log


class Stored(NamedTuple):
    """What is durable, and has no receipt yet."""

    receipt: Receipt
    log: Log


def open_worker_context(
    plan: Plan,
    hardware: Hardware,
    retry_policy: RetryPolicy,
    source: Source,
    tell: Listener = silent,
    model: Model | None = None,
    journal: Journal | None = None,
) -> WorkerContext:
    """A workplace of this process, around an open source. Raises InputError or TransientError.

    `model`: the plan's, and `journal`: of this process, where they are open already.
    """
    output = parse_address(plan.run_file.output.url)
    return WorkerContext(
        plan=plan,
        digest=digest(plan.identity()),
        source=source,
        model=model or open_run_model(plan),
        sink=open_sink(plan.run_file.output.url),
        receipts=SegmentWriter(output / FOLDER),
        hardware=hardware,
        retry_policy=retry_policy,
        tell=tell,
        journal=journal or Journal(output, plan.blocks.block_shape, device_name(hardware.device)),
    )


def read(place: WorkerContext, block_index: int, output_box: Box) -> Sections:
    """The sections that `output_box`, all or a part of the block, needs."""
    source_box = place.plan.source_box(output_box)
    rejected = place.plan.gaps.rejected

    def sections_of_box() -> tuple[Voxels, list[Box]]:
        holes: list[Box] = []  # of this attempt alone
        return read_kept(place.source, source_box, rejected, holes.append), holes

    (voxels, holes), log = _stage(place, "read", Log(block_index, {}), sections_of_box)
    return Sections(output_box, voxels, log._replace(bytes_read=voxels.nbytes, holes=tuple(holes)))


def render(place: WorkerContext, sections: Sections) -> Rendered:
    """The arrays of the block."""
    box, n_yx = sections.output_box, sections.output_box.shape[1] * sections.output_box.shape[2]

    def arrays_of_box() -> dict[str, Voxels]:
        return render_block(
            place.plan,
            place.model,
            sections.voxels,
            box,
            place.hardware,
            lambda n_planes: place.tell(PlanesDone(n_planes * n_yx)),
        )

    arrays, log = _stage(place, "render", sections.log, arrays_of_box)
    return Rendered(box, arrays, log)


def write(place: WorkerContext, rendered: Rendered) -> None:
    """Write the block's shards and then, when they are durable, its receipt."""
    note(place, store(place, rendered))


def store(place: WorkerContext, rendered: Rendered) -> Stored:
    """Write the block's shards. What is returned holds no voxels."""
    box, log = rendered.output_box, rendered.log
    checksums, log = _stage(place, "write", log, lambda: write_shards(place, box, rendered.arrays))
    return Stored(_receipt(place, box, checksums, log), log)


def note(place: WorkerContext, stored: Stored) -> None:
    """Write the receipt of what is stored."""
    record = stored.receipt.as_record()
    _stage(place, "receipt", stored.log, lambda: place.receipts.append(record))


def write_shards(place: WorkerContext, box: Box, arrays: dict[str, Voxels]) -> dict[str, tuple[str, ...]]:
    """Write all arrays of a block, and meanwhile sum up their shards: checksums by array, one a shard.

    Each array is written in one call: the store cuts it into shards and compresses them in parallel.
    """
    with ThreadPoolExecutor(len(arrays)) as pool:
        writes = [pool.submit(place.sink.write, name, box, voxels) for name, voxels in arrays.items()]
        checksums = {name: _checksums(place.plan.shards, box, voxels) for name, voxels in arrays.items()}
        for written in writes:
            written.result()
    return checksums


def _checksums(shards: BlockGrid, box: Box, voxels: Voxels) -> tuple[str, ...]:
    boxes = (shards.box(shard).relative_to(box.start) for shard in shards.touching(box))
    return tuple(checksum(voxels[shard_box.slices]) for shard_box in boxes)


def _receipt(place: WorkerContext, box: Box, checksums: dict[str, tuple[str, ...]], log: Log) -> Receipt:
    traffic = _METER.taken()
    return Receipt(
        digest=place.digest,
        shards=tuple(place.plan.shards.touching(box)),
        checksums=checksums,
        output_box=box,
        seconds=log.seconds,
        n_attempts=1 + log.n_failures,
        bytes_read=log.bytes_read,
        n_requests_failed=traffic.n_requests_failed,
        bytes_fetched=traffic.bytes_fetched,
        filled_sections=tuple(sorted({u for hole in log.holes for u in range(hole.start[0], hole.stop[0])})),
        n_voxels_filled=sum(hole.n_voxels for hole in log.holes),
        peak_bytes=peak_bytes(),
        host=socket.gethostname(),
        device=device_name(place.hardware.device),
        job=job_id(),
        peak_gpu_bytes=peak_gpu_bytes(place.hardware.device),
        pid=os.getpid(),
        time=time.time(),
    )


def _stage(place: WorkerContext, name: str, log: Log, work: Callable[[], T]) -> tuple[T, Log]:
    """`work()` with retry_policy, and the log with its seconds and failures."""
    failures = 0

    def on_failure(reason: str) -> None:
        nonlocal failures
        failures += 1
        place.tell(AttemptFailed(log.block_index, reason, failures))
        place.journal.tell("attempt failed", log.block_index, reason, stage=name, attempt=failures)

    started = time.perf_counter()
    with place.journal.working_on(log.block_index):
        result = with_retries(work, place.retry_policy, on_failure)
    seconds = {**log.seconds, name: time.perf_counter() - started}
    return result, log._replace(seconds=seconds, n_failures=log.n_failures + failures)


def peak_bytes() -> int:
    """Most memory that this process has held so far (resident).

    Linux: from /proc, because what getrusage says there includes the process that began this one.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
