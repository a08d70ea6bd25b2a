"""What a process that works on an output tells of itself: a log that stays, and a heartbeat that does not.

    .vemdiffuse/events/node1-4242-9f3c.jsonl    {"check":..,"time":..,"host":..,"what":"set aside",..}
    .vemdiffuse/beats/node1-4242-51d0.json      {"check":..,"time":..,"every_s":5,"blocks":[17,18],..}

No scheduler is asked which blocks are at work: each process names its own in a heartbeat, one small object
that is put anew every few seconds and taken away at the end. Whoever was killed leaves one that grows old. A
log of heartbeats would grow without end: 64 processes would write 2 GB in two weeks.

All is written by one thread, never by those who work, unless they ask for a heartbeat; what a crash cuts
off is the last few seconds of an account. Receipts and marks of what was set aside do not pass through here:
those are durable, and they count.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event as Flag
from threading import Lock, Thread
from types import TracebackType
from typing import Literal, NamedTuple, TypeAlias

from vemdiffuse_pipe.cluster.hosts import is_gone, job_id, numbers_of_processes
from vemdiffuse_pipe.config import Json
from vemdiffuse_pipe.errors import VemdiffuseError
from vemdiffuse_pipe.geometry.box import Zyx
from vemdiffuse_pipe.records.segments import SegmentWriter, encode, is_whole
from vemdiffuse_pipe.storage import objects
from vemdiffuse_pipe.storage.address import Address

EVENTS = ".vemdiffuse/events"
BEATS = ".vemdiffuse/beats"

EVERY_S = 5.0  # on a disk
EVERY_S_ON_A_STORE = 30.0  # where each put is paid for: 64 processes put 180,000 times a day, for a dollar
FIRST_S = 1.0  # a run that is over sooner leaves no heartbeat
BEATS_UNTIL_OLD = 3
MAX_S = 120.0  # no heartbeat makes itself young for longer than three times this
MAX_BEAT = 1 << 20
N_READERS = 16
MAX_LINES = 10_000  # kept while the output cannot be written

What: TypeAlias = Literal[
    "run started",
    "worker started",
    "attempt failed",
    "block failed",
    "set aside",
    "given to a second worker",
    "worker ended",
    "run stopped",
    "run ended",
]


class Journal:
    """The account of one process. For many threads; nothing that is called here waits for the output.

    `names_each`: whether the heartbeat is put before each block, and not every few seconds only.
    `output`: where the run's output is. `block_shape`: what block indices are of; it may change between two
    starts. `device`: what the process renders on. Use it as a context, or `close` it. What cannot be written
    is tried again at the next heartbeat, and never fails a run.
    """

    def __init__(
        self,
        output: Address,
        block_shape: Zyx,
        device: str = "",
        *,
        every_s: float | None = None,
        first_s: float = FIRST_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.names_each = False
        self._every_s = every_s or (EVERY_S if output.is_local else EVERY_S_ON_A_STORE)
        self._first_s = min(first_s, self._every_s)
        self._clock = clock
        self._output = output
        self._who: dict[str, Json] = {"host": socket.gethostname(), "pid": os.getpid(), "job": job_id()}
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.json"
        self._beat_at = output / BEATS / name
        self._as_ever: dict[str, Json] = {
            **self._who,
            "device": device,
            "since": clock(),
            "every_s": self._every_s,
            "block_shape": list(block_shape),
            "pids": numbers_of_processes(),
        }
        self._blocks: Counter[int] = Counter()
        self._is_alone = False
        self._lines: list[dict[str, Json]] = []
        self._log = SegmentWriter(output / EVENTS)
        self._lock, self._beating = Lock(), Lock()
        self._closing = Flag()
        self._thread: Thread | None = None
        self._n_named = 0  # in the last heartbeat

    @property
    def heartbeat_name(self) -> str:
        """What this process's heartbeat is called."""
        return self._beat_at.name

    def begun(self, block_index: int, *, alone: bool = False) -> None:
        """From now on this process works on the block.

        `alone`: a process has died with it before, and nothing else is under way.
        """
        with self._lock:
            is_new = block_index not in self._blocks
            self._blocks[block_index] += 1
            self._is_alone = alone if is_new else self._is_alone
            self._wake()
        if is_new and (alone or self.names_each):
            self.beat()

    def ended(self, block_index: int) -> None:
        """It no longer does, however that ended. As often as `begun`."""
        with self._lock:
            self._blocks[block_index] -= 1
            if self._blocks[block_index] <= 0:
                del self._blocks[block_index]

    @contextmanager
    def working_on(self, block_index: int) -> Iterator[None]:
        """`begun`, and at the end of the context `ended`."""
        self.begun(block_index)
        try:
            yield
        finally:
            self.ended(block_index)

    def beat(self) -> None:
        """Put the heartbeat now: whoever dies after this has said with what, if it could be written."""
        with suppress(VemdiffuseError):
            self._beat()

    def tell(
        self, what: What, block_index: int | None = None, reason: str = "", **facts: str | float | None
    ) -> None:
        """Enter an event. `facts` are stored beside it: JSON, by name; those that are None or '' are not."""
        named = {"block": block_index, "reason": reason, **facts}
        told = {name: value for name, value in named.items() if value is not None and value != ""}
        with self._lock:
            self._lines.append({"time": round(self._clock(), 3), **self._who, "what": what, **told})
            del self._lines[:-MAX_LINES]
            self._wake()

    def close(self) -> None:
        """Write what was told, take the heartbeat away and end. Telling more begins again."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._closing.set()
        thread.join()
        self._closing.clear()
        with suppress(VemdiffuseError):
            self._write_lines()
        self._log.close()
        with suppress(VemdiffuseError):
            objects.remove(self._beat_at)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = Thread(target=self._keep, name="journal", daemon=True)
            self._thread.start()

    def _keep(self) -> None:
        wait_s = self._first_s
        while not self._closing.wait(wait_s):
            with suppress(VemdiffuseError):
                self._write_lines()
            with suppress(VemdiffuseError):
                self._beat()
            wait_s = self._every_s

    def _write_lines(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        try:
            if lines:
                self._log.extend(lines)
        except VemdiffuseError:
            with self._lock:
                self._lines = [*lines, *self._lines]
            raise

    def _beat(self) -> None:
        """Say which blocks are at work. Once there is none any more, say that once."""
        with self._beating:
            with self._lock:
                blocks: list[Json] = [*sorted(self._blocks)]
                alone = self._is_alone
            if not blocks and not self._n_named:
                return
            beat = {"time": self._clock(), **self._as_ever, "blocks": blocks, "alone": alone}
            objects.write_bytes_atomically(self._beat_at, encode(beat))
            self._n_named = len(blocks)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a process at work last said. `time`, `since` (when it began): seconds since 1970, by its clock.

    `blocks`: indices on a grid of `block_shape`; nobody has checked that there are such blocks. `alone`: with
    one that a process has died with before. `name`: of the object.
    """

    host: str
    pid: int
    job: str
    device: str
    time: float
    since: float
    block_shape: Zyx
    blocks: tuple[int, ...]
    alone: bool = False
    name: str = field(default="", compare=False)


class Heartbeats(NamedTuple):
    """Heartbeats of processes that live, and of those that died; each by host."""

    living: list[Heartbeat]
    dead: list[Heartbeat]


def read_heartbeats(output: Address, now: float, oldest_s: float | None = None) -> Heartbeats:
    """All heartbeats. At `now`, those who live have one that is at most `oldest_s` old, where that is given.
    Else it is at most three times as old as they said that they would wait between two, and they are no
    process of this machine that is seen to be gone.

    What cannot be read as a heartbeat is none. Raises DataError or TransientError where nothing can be read.
    """
    beats = Heartbeats([], [])
    with ThreadPoolExecutor(N_READERS) as pool:
        addresses = (output / BEATS / name for name in objects.list_names(output / BEATS))
        for beat, every_s, pids in filter(None, pool.map(_beat_at, addresses)):
            is_old = now - beat.time > _limit(oldest_s, every_s)
            is_seen_to_be_gone = beat.host == socket.gethostname() and is_gone(beat.pid, pids)
            has_died = is_old or (oldest_s is None and is_seen_to_be_gone)
            (beats.dead if has_died else beats.living).append(beat)
    return Heartbeats(*(sorted(some, key=lambda beat: (beat.host, beat.pid)) for some in beats))


def forget(output: Address, beats: Iterable[Heartbeat]) -> None:
    """Take away heartbeats of processes that died. Raises OutputError or TransientError."""
    for beat in beats:
        objects.remove(output / BEATS / beat.name)


def _limit(oldest_s: float | None, every_s: float) -> float:
    return BEATS_UNTIL_OLD * min(every_s, MAX_S) if oldest_s is None else oldest_s


def _beat_at(address: Address) -> tuple[Heartbeat, float, int] | None:
    data = objects.read_bytes(address, MAX_BEAT)
    if data is None or not is_whole(data):
        return None
    try:
        record = json.loads(data)
        numbers = (float(record["time"]), float(record["since"]), float(record["every_s"]))
        blocks = tuple(int(block) for block in record["blocks"])
        z, y, x = (max(1, int(side)) for side in record["block_shape"])
        who = (str(record["host"]), int(record["pid"]), str(record["job"]), str(record["device"]))
        alone, pids = record.get("alone") is True, int(record.get("pids", 0))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return Heartbeat(*who, *numbers[:2], (z, y, x), blocks, alone, address.name), numbers[2], pids
