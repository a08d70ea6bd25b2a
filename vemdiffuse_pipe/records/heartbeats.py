"""Heartbeats: which process is at which blocks, as other processes see it.

    <records>/beats/node1-4242-51d0.json      {"check":..,"time":..,"every_s":5,"blocks":[17,18],..}

A process that ends takes its heartbeat away. A killed one leaves its heartbeat, which grows old.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from vemdiffuse_pipe.cluster.hosts import is_gone
from vemdiffuse_pipe.geometry.box import Zyx
from vemdiffuse_pipe.records.segments import is_whole
from vemdiffuse_pipe.storage import objects
from vemdiffuse_pipe.storage.address import Address

FOLDER = "beats"  # its name since the first version

INTERVALS_UNTIL_OLD = 3
MAX_INTERVAL_S = 120.0  # no process waits longer between two heartbeats, whatever its heartbeat says
MAX_BYTES = 1 << 20
N_READERS = 16


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The last heartbeat of a process, as it wrote it: unchecked."""

    host: str
    """Name of the machine."""
    pid: int
    """Process number there."""
    job: str
    """Job of a batch system, '' outside."""
    device: str
    """'cpu', or the GPU and its name."""
    time: float
    """When it was written, seconds since 1970 by the clock of `host`."""
    since: float
    """When the process started, by the same clock."""
    block_shape: Zyx
    """The block shape that `blocks` counts in, zyx."""
    blocks: tuple[int, ...]
    """Linear indices of the blocks under way."""
    alone: bool = False
    """True where a process crashed with this block before, and nothing else is under way."""
    name: str = field(default="", compare=False)
    """Name of the object."""


class Heartbeats(NamedTuple):
    """Heartbeats of living and of crashed processes, by host."""

    living: list[Heartbeat]
    crashed: list[Heartbeat]


def read_heartbeats(records: Address, now: float, oldest_s: float | None = None) -> Heartbeats:
    """All heartbeats. What cannot be read as a heartbeat is none.

    `now`: seconds since 1970. `oldest_s`: age up to which a process counts as living; else three times the
    interval that its heartbeat states, unless it is a process of this machine that no longer exists.
    Raises DataError or TransientError where nothing can be read.
    """
    beats = Heartbeats([], [])
    with ThreadPoolExecutor(N_READERS) as pool:
        addresses = (records / FOLDER / name for name in objects.list_names(records / FOLDER))
        for beat, every_s, pids in filter(None, pool.map(_read, addresses)):
            is_old = now - beat.time > _oldest_s(oldest_s, every_s)
            is_seen_to_be_gone = beat.host == socket.gethostname() and is_gone(beat.pid, pids)
            has_crashed = is_old or (oldest_s is None and is_seen_to_be_gone)
            (beats.crashed if has_crashed else beats.living).append(beat)
    return Heartbeats(*(sorted(group, key=lambda beat: (beat.host, beat.pid)) for group in beats))


def remove_heartbeats(records: Address, beats: Iterable[Heartbeat]) -> None:
    """Remove heartbeats of crashed processes. Raises OutputError or TransientError."""
    for beat in beats:
        objects.remove(records / FOLDER / beat.name)


def _oldest_s(oldest_s: float | None, every_s: float) -> float:
    return INTERVALS_UNTIL_OLD * min(every_s, MAX_INTERVAL_S) if oldest_s is None else oldest_s


def _read(address: Address) -> tuple[Heartbeat, float, int] | None:
    """The heartbeat at `address`, the interval that it states, and whose process numbers it counts in."""
    data = objects.read_bytes(address, MAX_BYTES)
    if data is None or not is_whole(data):
        return None
    try:
        record = json.loads(data)
        time_s, since_s, every_s = (float(record[name]) for name in ("time", "since", "every_s"))
        blocks = tuple(int(block) for block in record["blocks"])
        z, y, x = (max(1, int(side)) for side in record["block_shape"])
        process = (str(record["host"]), int(record["pid"]), str(record["job"]), str(record["device"]))
        alone, pids = record.get("alone") is True, int(record.get("pids", 0))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return Heartbeat(*process, time_s, since_s, (z, y, x), blocks, alone, address.name), every_s, pids
