"""What is summed over receipts, one by one: millions of them in the memory of a few."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil

from vemdiffuse_pipe.records.receipts import Cost

MINUTE_S = 60.0
MIN_MINUTES, MAX_MINUTES = 5, 60  # of the present speed
N_SLOWEST = 5

Span = tuple[float, float]


@dataclass(slots=True)
class HostTally:
    """What one host has done."""

    n_blocks: int = 0
    """Its receipts."""
    n_voxels: int = 0
    """Voxels of the output."""
    devices: set[str] = field(default_factory=set)
    """Devices that rendered there."""
    by_second: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    """Voxels of the last hour, by the second since 1970 in which they were done."""


class Tally:
    """Sums over receipts, as seen at `now`: seconds since 1970, which may be put later."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.spans: dict[str, Span] = {}
        self.hosts: defaultdict[str, HostTally] = defaultdict(HostTally)
        self.slowest: list[tuple[float, tuple[int, ...], str]] = []  # a heap: seconds, first voxel, host
        self.n_receipts = self.n_voxels = self.n_attempts_failed = self.bytes_read = self.peak_bytes = 0
        self.n_requests_failed = self.bytes_fetched = self.n_voxels_filled = self.peak_gpu_bytes = 0

    def add(self, segment: str, cost: Cost) -> None:
        """Count a receipt."""
        (z0, y0, x0), (z1, y1, x1) = cost["box"]
        n_voxels = (z1 - z0) * (y1 - y0) * (x1 - x0)
        spent = self._add_times(segment, cost)
        self._add_to_host(cost, n_voxels)
        slow = (spent, (z0, y0, x0), cost["host"])
        if len(self.slowest) < N_SLOWEST:
            heapq.heappush(self.slowest, slow)
        elif spent > self.slowest[0][0]:
            heapq.heapreplace(self.slowest, slow)
        self.n_receipts += 1
        self.n_voxels += n_voxels
        self.n_attempts_failed += cost["n_attempts"] - 1
        self.n_requests_failed += cost.get("n_requests_failed", 0)
        self.bytes_read += cost["bytes_read"]
        self.bytes_fetched += cost.get("bytes_fetched", 0)
        self.n_voxels_filled += cost.get("filled", (0, 0))[1]
        self.peak_bytes = max(self.peak_bytes, cost["peak_bytes"])
        self.peak_gpu_bytes = max(self.peak_gpu_bytes, cost.get("peak_gpu_bytes", 0))

    def _add_times(self, segment: str, cost: Cost) -> float:
        spent, done_at = 0.0, cost["time"]
        for stage, seconds in cost["seconds"].items():
            self.seconds[stage] += seconds
            spent += seconds
        first, last = self.spans.get(segment, (done_at, done_at))
        self.spans[segment] = (min(first, done_at - spent), max(last, done_at))
        return spent

    def _add_to_host(self, cost: Cost, n_voxels: int) -> None:
        host = self.hosts[cost["host"]]
        host.n_blocks += 1
        host.n_voxels += n_voxels
        host.devices.add(cost["device"])
        if self.now - cost["time"] < MAX_MINUTES * MINUTE_S:
            host.by_second[ceil(cost["time"])] += n_voxels

    def recent_minutes(self) -> int:
        """Minutes that the present speed is of: five, or three blocks where these take longer; at most 60."""
        mean_s = sum(self.seconds.values()) / max(1, self.n_receipts)
        return min(MAX_MINUTES, max(MIN_MINUTES, ceil(3 * mean_s / MINUTE_S)))

    def recent(self, host: HostTally) -> int:
        """Voxels that the host has done in the recent minutes. What is older than an hour is forgotten."""
        for second in [s for s in host.by_second if self.now - s >= MAX_MINUTES * MINUTE_S]:
            del host.by_second[second]
        recent_s = self.recent_minutes() * MINUTE_S
        return sum(n for second, n in host.by_second.items() if self.now - second < recent_s)

    def average(self) -> float:
        """Voxels a second, over the time in which at least one process worked."""
        return rate(self.n_voxels, self.spans.values())


def rate(n_voxels: int, spans: Iterable[Span]) -> float:
    """Voxels a second of working time: spans that overlap count once."""
    working_s, end = 0.0, float("-inf")
    for first, last in sorted(spans):
        working_s += max(0.0, last - max(first, end))
        end = max(end, last)
    return n_voxels / working_s if working_s else 0.0
