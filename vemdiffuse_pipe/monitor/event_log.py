"""The log of an output: what the journals of all its processes wrote, in order of time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from vemdiffuse_pipe.config import Json
from vemdiffuse_pipe.output.run_output import RunOutput, open_run_output
from vemdiffuse_pipe.records.event_lines import RENAMED
from vemdiffuse_pipe.records.journal import EVENTS
from vemdiffuse_pipe.records.segments import SegmentReader
from vemdiffuse_pipe.storage.address import Address

POLL_S = 2.0
_NAMED = ("check", "time", "host", "pid", "job", "what", "block", "reason")


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event of a run, as it was logged."""

    time: float
    """Seconds since 1970, by the clock of `host`."""
    host: str
    """Name of the machine."""
    pid: int
    """Process number there."""
    job: str
    """Job of a batch system, '' outside."""
    what: str
    """What happened: 'run started', 'marked failed', ..; see `records.event_lines`."""
    block: int | None = None
    """Linear index of the block, if it is about one."""
    reason: str = ""
    """Why, where something failed."""
    facts: Mapping[str, Json] = field(default_factory=dict)
    """What else was logged, by name."""


def events(output: str | RunOutput) -> list[LoggedEvent]:
    """All that was logged so far, in order of time. Torn lines, and lines that are no events, do not count.

    Raises OutputError where there is no such output.

    Example:

        >>> from vemdiffuse_pipe import events
        >>> events("isotropic.zarr")[0].what
        'run started'
    """
    return _log(output).new()


def follow(output: str | RunOutput, sleep: Callable[[float], None] = time.sleep) -> Iterator[LoggedEvent]:
    """All that was logged so far and then, without end, what is logged from now on. Raises OutputError."""
    log = _log(output)
    while True:
        yield from log.new()
        sleep(POLL_S)


def _log(output: str | RunOutput) -> EventLog:
    output = output if isinstance(output, RunOutput) else open_run_output(output)
    return EventLog(output.records)


class EventLog:
    """A log that is being written: each call reads only what is new in it."""

    def __init__(self, records: Address) -> None:
        self._segments = SegmentReader(records / EVENTS)

    def new(self) -> list[LoggedEvent]:
        """What was logged since the last call, in order of time. Raises DataError or TransientError."""
        logged = (_parsed(line) for _, line in self._segments.new_lines())
        return sorted((event for event in logged if event is not None), key=lambda event: event.time)


def _parsed(line: bytes) -> LoggedEvent | None:
    try:
        record = json.loads(line)
        block = record.get("block")
        return LoggedEvent(
            time=float(record["time"]),
            host=str(record["host"]),
            pid=int(record["pid"]),
            job=str(record.get("job", "")),
            what=RENAMED.get(str(record["what"]), str(record["what"])),
            block=None if block is None else int(block),
            reason=str(record.get("reason", "")),
            facts={name: value for name, value in record.items() if name not in _NAMED},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
