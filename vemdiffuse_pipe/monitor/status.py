"""How far a run is, from its output alone: while others write, or years after. Takes no lock, writes nothing.

receipts       what is done, by whom, how fast             they prove it
set_aside      what was given up, and why
beats          what is at work: named in a heartbeat that is young, and not done yet
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from vemdiffuse_pipe.config import Json
from vemdiffuse_pipe.errors import OutputError
from vemdiffuse_pipe.geometry.box import Zyx
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.monitor.tally import MINUTE_S, Tally
from vemdiffuse_pipe.output.mask import read_outside
from vemdiffuse_pipe.output.opening import identity_of, stored_run_file
from vemdiffuse_pipe.plan.plan import choose_block
from vemdiffuse_pipe.records import failures
from vemdiffuse_pipe.records.events import FailedBlock
from vemdiffuse_pipe.records.journal import Heartbeat, read_heartbeats
from vemdiffuse_pipe.records.receipts import CostReader
from vemdiffuse_pipe.records.shards import ShardSet, count_missing
from vemdiffuse_pipe.storage import StoredSink, open_sink, parse_address


@dataclass(frozen=True, slots=True)
class Reason:
    """Why `n_blocks` were set aside: the kind of failure, and the first of them."""

    kind: str
    n_blocks: int
    example: FailedBlock


@dataclass(frozen=True, slots=True)
class HostRate:
    """What a host has done, and how fast it is now. `n_processes`: with a young heartbeat."""

    host: str
    devices: tuple[str, ...]
    n_processes: int
    n_blocks_done: int
    voxels_done: int
    voxels_per_s_now: float


@dataclass(frozen=True, slots=True)
class SlowBlock:
    """A block that took long. `seconds`: of all its stages."""

    block_index: int
    seconds: float
    host: str


@dataclass(frozen=True, slots=True)
class Status:
    """What the receipts, marks and heartbeats of an output say.

    `n_blocks`, `running`: of the block shape that the run was begun with. `n_blocks_skipped`,
    `n_shards_skipped`: those outside its mask, whose voxels `voxels_total` leaves out. `seconds`: by stage,
    summed over all blocks. `n_attempts_failed`: tries that something transient spoiled; `n_requests_failed`:
    requests that a store was asked again. `bytes_fetched`: what came from the store, encoded, for the
    `bytes_read` that were needed. `n_voxels_filled`: that did not exist. `voxels_per_s`: over the time in
    which at least one process worked; `voxels_per_s_now`: over the last minutes. `seconds_left`: at the speed
    of now, None where nothing is at work. `last_receipt`: seconds since 1970, 0 where there is none.
    """

    output: str
    identity: Mapping[str, Json]
    digest: str
    n_shards: int
    n_shards_done: int
    n_blocks: int
    n_blocks_done: int
    running: tuple[int, ...]
    failed_blocks: tuple[FailedBlock, ...]
    reasons: tuple[Reason, ...]
    voxels_done: int
    voxels_total: int
    seconds: Mapping[str, float]
    n_attempts_failed: int
    n_requests_failed: int
    bytes_read: int
    bytes_fetched: int
    n_voxels_filled: int
    peak_bytes: int
    peak_gpu_bytes: int
    voxels_per_s: float
    voxels_per_s_now: float
    seconds_left: float | None
    last_receipt: float
    n_blocks_skipped: int
    n_shards_skipped: int
    processes: tuple[Heartbeat, ...]
    hosts: tuple[HostRate, ...]
    slowest: tuple[SlowBlock, ...]

    @property
    def is_complete(self) -> bool:
        """True where every block that is wanted is done."""
        return self.n_blocks_done + self.n_blocks_skipped == self.n_blocks

    @property
    def is_finished(self) -> bool:
        """True where every block that is wanted is done or set aside."""
        n_given_up = len({b.block_index for b in self.failed_blocks})
        return self.n_blocks_done + self.n_blocks_skipped + n_given_up >= self.n_blocks


def status(output: str, *, now: float | None = None, oldest_s: float | None = None) -> Status:
    """How far the run of `output` is. Raises OutputError where there is no such output.

    `now`: seconds since 1970, else the clock. `oldest_s`: the age at which a heartbeat no longer counts, else
    three times what its process waits between two.
    """
    return Watched(output).status(now=now, oldest_s=oldest_s)


class Watched:
    """An output that is looked at again and again: each look reads the receipts that are new, no others."""

    def __init__(self, output: str) -> None:
        sink, address = open_sink(output), parse_address(output)
        self._output, self._address = output, address
        _, self._digest = identity_of(sink, output)
        self._blocks, self._done = grids(sink, output)
        self._tally = Tally(0.0)
        self._costs = CostReader(address, self._digest)
        self._marks = failures.MarkReader(address, self._blocks)

    def status(self, *, now: float | None = None, oldest_s: float | None = None) -> Status:
        """How far the run is, as `status` says. Raises OutputError, also where it is another run's by now."""
        now = time.time() if now is None else now
        identity, digest = identity_of(open_sink(self._output), self._output)
        if digest != self._digest:
            raise OutputError(
                f"{self._output} is of run {digest} now, no longer of {self._digest}; look again"
            )
        beats = read_heartbeats(
            self._address, now, oldest_s
        ).living  # before the receipts: what ends then is done
        self._tally.now = now
        for segment, cost in self._costs.new_costs():
            self._tally.add(segment, cost)
            for shard in cost["shards"]:
                self._done.add(shard)
        failed_blocks = tuple(mark.block for mark in self._marks.holding(self._done))
        return self._summed(identity, now, beats, failed_blocks)

    def _summed(
        self,
        identity: Mapping[str, Json],
        now: float,
        beats: list[Heartbeat],
        failed_blocks: tuple[FailedBlock, ...],
    ) -> Status:
        blocks, done, tally = self._blocks, self._done, self._tally
        outside = read_outside(self._address, done.grid)
        wanted = count_missing(blocks, outside)
        n_voxels_wanted = prod(blocks.shape) - outside.n_voxels()
        n_voxels_left = n_voxels_wanted - done.n_voxels() - sum(b.output_box.n_voxels for b in failed_blocks)
        hosts = _hosts(tally, beats, _working_s(tally, beats, now))
        speed = sum(host.voxels_per_s_now for host in hosts)
        return Status(
            output=self._output,
            identity=identity,
            digest=self._digest,
            n_shards=done.grid.n_blocks,
            n_shards_done=len(done),
            n_blocks=blocks.n_blocks,
            n_blocks_done=wanted - count_missing(blocks, done | outside),
            n_blocks_skipped=blocks.n_blocks - wanted,
            n_shards_skipped=len(outside),
            running=running_blocks(beats, blocks, done),
            failed_blocks=failed_blocks,
            reasons=_reasons(failed_blocks),
            voxels_done=done.n_voxels(),
            voxels_total=n_voxels_wanted,
            seconds=dict(tally.seconds),
            n_attempts_failed=tally.n_attempts_failed,
            n_requests_failed=tally.n_requests_failed,
            bytes_read=tally.bytes_read,
            bytes_fetched=tally.bytes_fetched,
            n_voxels_filled=tally.n_voxels_filled,
            peak_bytes=tally.peak_bytes,
            peak_gpu_bytes=tally.peak_gpu_bytes,
            voxels_per_s=tally.average(),
            voxels_per_s_now=speed,
            seconds_left=_seconds_left(n_voxels_left, (speed or tally.average()) if beats else 0.0),
            last_receipt=max((last for _, last in tally.spans.values()), default=0.0),
            processes=tuple(beats),
            hosts=hosts,
            slowest=_slowest(tally, blocks),
        )


def grids(sink: StoredSink, output: str) -> tuple[BlockGrid, ShardSet]:
    """The blocks that the run of an output was begun with, and an empty set of its shards."""
    shape, shard_shape = sink.spec.shape, sink.spec.shard_shape
    block_shape = choose_block(stored_run_file(sink, output), shape, shard_shape)
    return BlockGrid(shape, block_shape), ShardSet(BlockGrid(shape, shard_shape))


def running_blocks(beats: Iterable[Heartbeat], blocks: BlockGrid, done: ShardSet) -> tuple[int, ...]:
    """Blocks that a heartbeat names and that are not done, ascending. Names of no block do not count."""
    running: set[int] = set()
    for beat in beats:
        theirs = BlockGrid(blocks.shape, beat.block_shape)
        for index in beat.blocks:
            if 0 <= index < theirs.n_blocks:
                box = theirs.box(index)
                if any(shard not in done for shard in done.grid.touching(box)):
                    running.add(blocks.index_of(box.start))
    return tuple(sorted(running))


def _working_s(tally: Tally, beats: list[Heartbeat], now: float) -> float:
    """Seconds, of those that are now, in which somebody can have worked."""
    begun = [beat.since for beat in beats] or [first for first, _ in tally.spans.values()]
    return max(1.0, min(tally.minutes_that_are_now() * MINUTE_S, now - min(begun, default=now)))


def _hosts(tally: Tally, beats: list[Heartbeat], working_s: float) -> tuple[HostRate, ...]:
    n_processes: defaultdict[str, int] = defaultdict(int)
    for beat in beats:
        n_processes[beat.host] += 1
    names = sorted({*tally.hosts, *n_processes})
    return tuple(
        HostRate(
            host=name,
            devices=tuple(sorted(tally.hosts[name].devices)),
            n_processes=n_processes[name],
            n_blocks_done=tally.hosts[name].n_blocks,
            voxels_done=tally.hosts[name].n_voxels,
            voxels_per_s_now=tally.recent(tally.hosts[name]) / working_s,
        )
        for name in names
    )


def _slowest(tally: Tally, blocks: BlockGrid) -> tuple[SlowBlock, ...]:
    return tuple(
        SlowBlock(blocks.index_of(_zyx(start)), seconds, host)
        for seconds, start, host in sorted(tally.slowest, reverse=True)
    )


def _zyx(numbers: tuple[int, ...]) -> Zyx:
    z, y, x = numbers
    return z, y, x


def _reasons(failed_blocks: tuple[FailedBlock, ...]) -> tuple[Reason, ...]:
    """Blocks by the kind of their failure, the most frequent first."""
    by_kind: defaultdict[str, list[FailedBlock]] = defaultdict(list)
    for block in failed_blocks:
        by_kind[block.reason.partition(":")[0]].append(block)
    reasons = (Reason(kind, len(blocks), blocks[0]) for kind, blocks in by_kind.items())
    return tuple(sorted(reasons, key=lambda reason: (-reason.n_blocks, reason.kind)))


def _seconds_left(n_voxels: int, speed: float) -> float | None:
    if n_voxels <= 0:
        return 0.0
    return n_voxels / speed if speed else None
