"""How far a run is, from its output alone: while others write, or years after. Takes no lock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.plan.plan import Json, choose_block
from vemdiffuse_pipe.running import set_aside
from vemdiffuse_pipe.running.events import SetAside
from vemdiffuse_pipe.running.mask import read_outside
from vemdiffuse_pipe.running.opening import identity_of, stored_run_file
from vemdiffuse_pipe.running.receipts import Receipt, read_receipts
from vemdiffuse_pipe.running.shards import ShardSet, count_missing
from vemdiffuse_pipe.storage import open_sink, parse_address

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Status:
    """What the receipts of an output say.

    `n_blocks`: of the block shape that the run was begun with. `n_blocks_skipped`, `n_shards_skipped`: those
    outside its mask, whose voxels `voxels_total` leaves out. `seconds`: by stage, summed over all blocks.
    `n_attempts_failed`: tries that something transient spoiled; `n_requests_failed`: requests that a store
    was asked again. `bytes_fetched`: what came from the store, encoded, for the `bytes_read` that were
    needed. `n_voxels_filled`: that did not exist. `voxels_per_s`: over the time in which at least
    one process worked. `last_receipt`: seconds since 1970, 0 where there is none.
    """

    output: str
    identity: Mapping[str, Json]
    digest: str
    n_shards: int
    n_shards_done: int
    n_blocks: int
    n_blocks_done: int
    set_aside: tuple[SetAside, ...]
    voxels_done: int
    voxels_total: int
    seconds: Mapping[str, float]
    n_attempts_failed: int
    n_requests_failed: int
    bytes_read: int
    bytes_fetched: int
    n_voxels_filled: int
    peak_bytes: int
    voxels_per_s: float
    last_receipt: float
    n_blocks_skipped: int
    n_shards_skipped: int


class _Sums:
    """What is summed over the receipts, one by one."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.spans: dict[str, Span] = {}
        self.n_voxels = self.n_attempts_failed = self.bytes_read = self.peak_bytes = 0
        self.n_requests_failed = self.bytes_fetched = self.n_voxels_filled = 0

    def add(self, segment: str, receipt: Receipt) -> None:
        for stage, seconds in receipt.seconds.items():
            self.seconds[stage] += seconds
        begun = receipt.time - sum(receipt.seconds.values())
        first, last = self.spans.get(segment, (begun, receipt.time))
        self.spans[segment] = (min(first, begun), max(last, receipt.time))
        self.n_voxels += receipt.output_box.n_voxels
        self.n_attempts_failed += receipt.n_attempts - 1
        self.n_requests_failed += receipt.n_requests_failed
        self.bytes_read += receipt.bytes_read
        self.bytes_fetched += receipt.bytes_fetched
        self.n_voxels_filled += receipt.n_voxels_filled
        self.peak_bytes = max(self.peak_bytes, receipt.peak_bytes)


def status(output: str) -> Status:
    """How far the run of `output` is. Raises OutputError where there is no such output."""
    sink, address = open_sink(output), parse_address(output)
    identity, digest = identity_of(sink, output)
    shape, shard_shape = sink.spec.shape, sink.spec.shard_shape
    blocks = BlockGrid(shape, choose_block(stored_run_file(sink, output), shape, shard_shape))
    done, sums = ShardSet(BlockGrid(shape, shard_shape)), _Sums()
    for segment, receipt in read_receipts(address, digest):
        sums.add(segment, receipt)
        for shard in receipt.shards:
            done.add(shard)
    outside = read_outside(address, done.grid)
    wanted = count_missing(blocks, outside)
    marks = set_aside.read_marks(address, blocks, done)
    return Status(
        output=output,
        identity=identity,
        digest=digest,
        n_shards=done.grid.n_blocks,
        n_shards_done=len(done),
        n_blocks=blocks.n_blocks,
        n_blocks_done=wanted - count_missing(blocks, done | outside),
        set_aside=tuple(mark.set_aside for mark in marks),
        voxels_done=done.n_voxels(),
        voxels_total=prod(shape) - outside.n_voxels(),
        seconds=dict(sums.seconds),
        n_attempts_failed=sums.n_attempts_failed,
        n_requests_failed=sums.n_requests_failed,
        bytes_read=sums.bytes_read,
        bytes_fetched=sums.bytes_fetched,
        n_voxels_filled=sums.n_voxels_filled,
        peak_bytes=sums.peak_bytes,
        voxels_per_s=_rate(sums.n_voxels, sums.spans.values()),
        last_receipt=max((last for _, last in sums.spans.values()), default=0.0),
        n_blocks_skipped=blocks.n_blocks - wanted,
        n_shards_skipped=len(outside),
    )


def _rate(n_voxels: int, spans: Iterable[Span]) -> float:
    """Voxels a second of working time: spans that overlap count once."""
    working_s, end = 0.0, float("-inf")
    for first, last in sorted(spans):
        working_s += max(0.0, last - max(first, end))
        end = max(end, last)
    return n_voxels / working_s if working_s else 0.0
