"""What a process writes about itself: a log of events that stays, and a heartbeat that is removed at its end.

    <records>/events/node1-4242-9f3c.jsonl    {"check":..,"time":..,"host":..,"what":"marked failed",..}
    <records>/beats/node1-4242-51d0.json      {"check":..,"time":..,"every_s":5,"blocks":[17,18],..}

No scheduler is asked which blocks are running: each process names its own in a heartbeat, one small object
that is rewritten every few seconds. A log of heartbeats would grow without end: 64 processes would write 2 GB
in two weeks.

One thread writes all of it, so that no block waits; a crash loses the last few seconds of the log. Receipts
and failure marks do not pass through here: those are durable, and they count.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event as Flag
from threading import Lock, Thread
from types import TracebackType

from vemdiffuse_pipe.cluster.hosts import job_id, numbers_of_processes
from vemdiffuse_pipe.config import Json
from vemdiffuse_pipe.errors import VemdiffuseError
from vemdiffuse_pipe.geometry.box import Zyx
from vemdiffuse_pipe.records import heartbeats
from vemdiffuse_pipe.records.event_lines import line_of
from vemdiffuse_pipe.records.events import Event
from vemdiffuse_pipe.records.segments import SegmentWriter, encode
from vemdiffuse_pipe.storage import objects
from vemdiffuse_pipe.storage.address import Address

EVENTS = "events"

INTERVAL_S = 5.0  # on a disk
INTERVAL_ON_A_STORE_S = 30.0  # where each put is paid for: 64 processes put 180,000 a day, for a dollar
FIRST_INTERVAL_S = 1.0  # a shorter run writes no heartbeat
MAX_LINES = 10_000  # kept while the output cannot be written


class Journal:
    """Log and heartbeat of one process. For many threads; no call waits for the output but `beat`.

    Use it as a context, or `close` it. What cannot be written is tried again at the next heartbeat, and never
    fails a run.
    """

    def __init__(
        self,
        records: Address,
        block_shape: Zyx,
        device: str = "",
        *,
        every_s: float | None = None,
        first_s: float = FIRST_INTERVAL_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`records`: their folder. `block_shape`: what block indices count in, zyx.

        `device`: of the process.
        """
        self.beats_before_each_block = False
        self._every_s = every_s or (INTERVAL_S if records.is_local else INTERVAL_ON_A_STORE_S)
        self._first_s = min(first_s, self._every_s)
        self._clock = clock
        self._process: dict[str, Json] = {"host": socket.gethostname(), "pid": os.getpid(), "job": job_id()}
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.json"
        self._address = records / heartbeats.FOLDER / name
        self._constants: dict[str, Json] = {
            **self._process,
            "device": device,
            "since": clock(),
            "every_s": self._every_s,
            "block_shape": list(block_shape),
            "pids": numbers_of_processes(),
        }
        self._blocks: Counter[int] = Counter()
        self._is_alone = False
        self._lines: list[dict[str, Json]] = []
        self._log = SegmentWriter(records / EVENTS)
        self._lock, self._beating = Lock(), Lock()
        self._closing = Flag()
        self._thread: Thread | None = None
        self._n_named = 0  # in the last heartbeat

    @property
    def heartbeat_name(self) -> str:
        """Name of this process's heartbeat object."""
        return self._address.name

    def start(self, block_index: int, *, alone: bool = False) -> None:
        """From now on the block is under way here.

        `alone`: a process crashed with it before, and nothing else is under way.
        """
        with self._lock:
            is_new = block_index not in self._blocks
            self._blocks[block_index] += 1
            self._is_alone = alone if is_new else self._is_alone
            self._wake()
        if is_new and (alone or self.beats_before_each_block):
            self.beat()

    def stop(self, block_index: int) -> None:
        """The block is no longer under way, however it ended. As often as `start`."""
        with self._lock:
            self._blocks[block_index] -= 1
            if self._blocks[block_index] <= 0:
                del self._blocks[block_index]

    @contextmanager
    def working_on(self, block_index: int) -> Iterator[None]:
        """`start`, and at the end of the context `stop`."""
        self.start(block_index)
        try:
            yield
        finally:
            self.stop(block_index)

    def beat(self) -> None:
        """Write the heartbeat now, if it can be written: a crash after this can be traced to its blocks."""
        with suppress(VemdiffuseError):
            self._beat()

    def on_event(self, event: Event) -> None:
        """Log an event, if it is one that the log holds."""
        line = line_of(event)
        if line is None:
            return
        with self._lock:
            self._lines.append({"time": round(self._clock(), 3), **self._process, **line})
            del self._lines[:-MAX_LINES]
            self._wake()

    def close(self) -> None:
        """Write what was logged, remove the heartbeat, stop the thread. A later event starts it again."""
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
            objects.remove(self._address)

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
            self._thread = Thread(target=self._write_regularly, name="journal", daemon=True)
            self._thread.start()

    def _write_regularly(self) -> None:
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
        """Write the blocks that are under way; once there is none any more, write that once."""
        with self._beating:
            with self._lock:
                blocks: list[Json] = [*sorted(self._blocks)]
                alone = self._is_alone
            if not blocks and not self._n_named:
                return
            beat = {"time": self._clock(), **self._constants, "blocks": blocks, "alone": alone}
            objects.write_bytes_atomically(self._address, encode(beat))
            self._n_named = len(blocks)
