"""Events as lines of a log: what the journal writes, and `events` reads.

    RunStarted(..)    ->    {"what":"run started","run":"5d41..","engine":"local","workers":2,"n_missing":24}

Planes and blocks that are done have no line: receipts say more about them.
"""

from __future__ import annotations

from collections.abc import Mapping

from vemdiffuse_pipe.config import Json
from vemdiffuse_pipe.records.events import (
    AttemptFailed,
    BackupTaskStarted,
    BlockFailed,
    BlockMarkedFailed,
    DashboardServed,
    Event,
    RunEnded,
    RunStarted,
    RunStopped,
    WorkerStarted,
    WorkerStopped,
)

# What older versions wrote, and what it is called now.
RENAMED = {
    "set aside": "marked failed",
    "given to a second worker": "backup task started",
    "worker ended": "worker stopped",
}


def line_of(event: Event) -> dict[str, Json] | None:
    """The line of an event, without time and process; None for an event that has none."""
    facts = _facts(event)
    if facts is None:
        return None
    return {name: value for name, value in facts.items() if value is not None and value != ""}


def _facts(event: Event) -> dict[str, Json] | None:
    match event:
        case RunStarted():
            run: dict[str, Json] = {"run": event.digest, "engine": event.engine, "workers": event.workers}
            return {"what": "run started", **run, "n_missing": event.n_missing}
        case DashboardServed():
            return {"what": "dashboard served", "address": event.address}
        case WorkerStarted():
            return {"what": "worker started", "device": event.device}
        case WorkerStopped():
            return {"what": "worker stopped"}
        case AttemptFailed():
            tried: dict[str, Json] = {"stage": event.stage, "attempt": event.attempt}
            return {"what": "attempt failed", **_block(event.block_index, event.reason), **tried}
        case BlockFailed():
            failed = _block(event.block_index, event.reason)
            return {"what": "block failed", **failed, "attempts": event.n_attempts}
        case BlockMarkedFailed():
            marked = _block(event.block.block_index, event.block.reason)
            return {"what": "marked failed", **marked, "attempts": event.block.n_attempts}
        case BackupTaskStarted():
            return {"what": "backup task started", "block": event.block_index, "worker": event.worker}
        case RunStopped():
            return {"what": "run stopped", "reason": event.reason}
        case RunEnded():
            stopped = event.outcome.stopped
            return {"what": "run stopped" if stopped else "run ended", "reason": stopped}
        case _:
            return None


def _block(index: int, reason: str) -> Mapping[str, Json]:
    return {"block": index, "reason": reason}
