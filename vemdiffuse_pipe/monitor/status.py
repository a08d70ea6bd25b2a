"""The state of a run, from its output alone: while others write, or years after. Takes no lock, writes
nothing.

receipts       what is done, by which host, how fast         they prove it
failures       what is marked failed, and why
heartbeats     what is running: named in a young heartbeat, and not done yet
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
from vemdiffuse_pipe.output.run_output import RunOutput, open_run_output
from vemdiffuse_pipe.records import failures
from vemdiffuse_pipe.records.events import FailedBlock
from vemdiffuse_pipe.records.heartbeats import Heartbeat, read_heartbeats
from vemdiffuse_pipe.records.receipts import CostReader
from vemdiffuse_pipe.records.shards import ShardSet, count_missing


@dataclass(frozen=True, slots=True)
class Reason:
    """Blocks that are marked failed for the same kind of reason."""

    kind: str
    """The class of the error."""
    n_blocks: int
    """How many blocks."""
    example: FailedBlock
    """The first of them."""


@dataclass(frozen=True, slots=True)
class HostRate:
    """What a host has done, and how fast it is now."""

    host: str
    """Name of the machine."""
    devices: tuple[str, ...]
    """Devices that rendered there."""
    n_processes: int
    """Processes with a young heartbeat."""
    n_blocks_done: int
    """Receipts of this host."""
    voxels_done: int
    """Voxels of the output."""
    voxels_per_s_now: float
    """Over the last minutes."""


@dataclass(frozen=True, slots=True)
class SlowBlock:
    """One of the slowest blocks."""

    block_index: int
    """Linear index."""
    seconds: float
    """All its stages together."""
    host: str
    """Where it was rendered."""


@dataclass(frozen=True, slots=True)
class Status:
    """What the receipts, failures and heartbeats of an output say."""

    output: str
    """Address of the output."""
    identity: Mapping[str, Json]
    """Everything that changes a voxel, by name."""
    digest: str
    """16 hexadecimal digits that stand for it."""
    n_shards: int
    """Shards of the output."""
    n_shards_done: int
    """Shards with a receipt."""
    n_blocks: int
    """Blocks of the block shape that the output was created with."""
    n_blocks_done: int
    """Blocks that are complete."""
    running: tuple[int, ...]
    """Indices of blocks that a living process has under way."""
    failed_blocks: tuple[FailedBlock, ...]
    """Blocks that are marked failed."""
    reasons: tuple[Reason, ...]
    """These, by the kind of failure, the most frequent first."""
    voxels_done: int
    """Voxels with a receipt."""
    voxels_total: int
    """Voxels of the output, without those outside the mask."""
    seconds: Mapping[str, float]
    """By stage, summed over all blocks."""
    n_attempts_failed: int
    """Attempts at a stage that failed for a transient reason."""
    n_requests_failed: int
    """Requests to a store that were retried."""
    bytes_read: int
    """Decoded bytes of the source that blocks needed."""
    bytes_fetched: int
    """Encoded bytes that came from the store for them."""
    n_voxels_filled: int
    """Voxels that do not exist in the source and were filled."""
    peak_bytes: int
    """Most resident memory of a process."""
    peak_gpu_bytes: int
    """Most GPU memory of a process."""
    voxels_per_s: float
    """Over the time in which at least one process worked."""
    voxels_per_s_now: float
    """Over the last minutes."""
    seconds_left: float | None
    """At the present speed; None where no process is at work."""
    last_receipt: float
    """Seconds since 1970, 0 where there is none."""
    n_blocks_skipped: int
    """Blocks outside the mask."""
    n_shards_skipped: int
    """Shards outside the mask."""
    processes: tuple[Heartbeat, ...]
    """Living processes."""
    hosts: tuple[HostRate, ...]
    """What each host does."""
    slowest: tuple[SlowBlock, ...]
    """The slowest blocks, slowest first."""

    @property
    def is_complete(self) -> bool:
        """True where every block that is wanted is done."""
        return self.n_blocks_done + self.n_blocks_skipped == self.n_blocks

    @property
    def is_finished(self) -> bool:
        """True where every block that is wanted is done or marked failed."""
        n_failed = len({block.block_index for block in self.failed_blocks})
        return self.n_blocks_done + self.n_blocks_skipped + n_failed >= self.n_blocks


def status(output: str | RunOutput, *, now: float | None = None, oldest_s: float | None = None) -> Status:
    """The state of the run of `output`. Raises OutputError where there is no such output.

    `now`: seconds since 1970, else the clock. `oldest_s`: the age at which a heartbeat no longer counts, else
    three times what its process waits between two.

    Example:

        >>> from vemdiffuse_pipe import status
        >>> status("isotropic.zarr").is_complete
        True
    """
    return Watched(output).status(now=now, oldest_s=oldest_s)


class Watched:
    """An output whose status is asked for again and again: each time only new receipts are read."""

    def __init__(self, output: str | RunOutput) -> None:
        self._output = output if isinstance(output, RunOutput) else open_run_output(output)
        self._records = self._output.records
        self._blocks, self._done = self._output.blocks, ShardSet(self._output.shards)
        self._tally = Tally(0.0)
        self._costs = CostReader(self._records, self._output.digest)
        self._marks = failures.MarkReader(self._records, self._blocks)

    def status(self, *, now: float | None = None, oldest_s: float | None = None) -> Status:
        """The state of the run, as `status`.

        Raises OutputError, also where the output is another run's by now.
        """
        now = time.time() if now is None else now
        digest = open_run_output(self._output.url).digest
        if digest != self._output.digest:
            raise OutputError(
                f"{self._output.url} is of run {digest} now, no longer of {self._output.digest}; look again"
            )
        beats = read_heartbeats(self._records, now, oldest_s).living  # before the receipts: what ends is done
        self._tally.now = now
        for segment, cost in self._costs.new_costs():
            self._tally.add(segment, cost)
            for shard in cost["shards"]:
                self._done.add(shard)
        failed_blocks = tuple(mark.block for mark in self._marks.holding(self._done))
        return self._summed(now, beats, failed_blocks)

    def _summed(self, now: float, beats: list[Heartbeat], failed_blocks: tuple[FailedBlock, ...]) -> Status:
        blocks, done, tally = self._blocks, self._done, self._tally
        outside = read_outside(self._records, done.grid)
        wanted = count_missing(blocks, outside)
        n_wanted = prod(blocks.shape) - outside.n_voxels()
        n_left = n_wanted - done.n_voxels() - sum(block.output_box.n_voxels for block in failed_blocks)
        hosts = _hosts(tally, beats, _working_s(tally, beats, now))
        speed = sum(host.voxels_per_s_now for host in hosts)
        return Status(
            output=self._output.url,
            identity=self._output.identity,
            digest=self._output.digest,
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
            voxels_total=n_wanted,
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
            seconds_left=_seconds_left(n_left, (speed or tally.average()) if beats else 0.0),
            last_receipt=max((last for _, last in tally.spans.values()), default=0.0),
            processes=tuple(beats),
            hosts=hosts,
            slowest=_slowest(tally, blocks),
        )


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
    """Seconds of the last minutes in which a process can have worked."""
    started = [beat.since for beat in beats] or [first for first, _ in tally.spans.values()]
    return max(1.0, min(tally.recent_minutes() * MINUTE_S, now - min(started, default=now)))


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
