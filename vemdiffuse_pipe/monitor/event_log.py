"""The log of an output, read: what the journals of all its processes told, in order of time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from vemdiffuse_pipe.config import Json
from vemdiffuse_pipe.output.opening import identity_of
from vemdiffuse_pipe.records.journal import EVENTS
from vemdiffuse_pipe.records.segments import SegmentReader
from vemdiffuse_pipe.storage import open_sink, parse_address
from vemdiffuse_pipe.storage.address import Address

POLL_S = 2.0
_NAMED = ("check", "time", "host", "pid", "job", "what", "block", "reason")


@dataclass(frozen=True, slots=True)
class Told:
    """An event of a run. `time`: seconds since 1970, by the clock of `host`. `job`: '' outside of a batch
    system. `block`: its index, if it is about one. `facts`: what else was told, by name.
    """

    time: float
    host: str
    pid: int
    job: str
    what: str
    block: int | None = None
    reason: str = ""
    facts: Mapping[str, Json] = field(default_factory=dict)


def events(output: str) -> list[Told]:
    """All that was told so far, in order of time. Torn lines, and lines that are no events, do not count.

    Raises OutputError where there is no such output.
    """
    return _log(output).new()


def follow(output: str, sleep: Callable[[float], None] = time.sleep) -> Iterator[Told]:
    """All that was told so far and then, without end, what is told from now on. Raises OutputError."""
    log = _log(output)
    while True:
        yield from log.new()
        sleep(POLL_S)


def _log(output: str) -> EventLog:
    identity_of(open_sink(output), output)
    return EventLog(parse_address(output))


class EventLog:
    """A log that is being written, and how much of it was read: to follow it costs what is new in it."""

    def __init__(self, output: Address) -> None:
        self._segments = SegmentReader(output / EVENTS)

    def new(self) -> list[Told]:
        """What was told since the last call, in order of time. Raises DataError or TransientError."""
        told = (_told(line) for _, line in self._segments.new_lines())
        return sorted((event for event in told if event is not None), key=lambda event: event.time)


def _told(line: bytes) -> Told | None:
    try:
        record = json.loads(line)
        block = record.get("block")
        return Told(
            time=float(record["time"]),
            host=str(record["host"]),
            pid=int(record["pid"]),
            job=str(record.get("job", "")),
            what=str(record["what"]),
            block=None if block is None else int(block),
            reason=str(record.get("reason", "")),
            facts={name: value for name, value in record.items() if name not in _NAMED},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
