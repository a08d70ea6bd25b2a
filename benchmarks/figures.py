"""What the programs of this folder share: a receipt, a grid of blocks, the clock, and the table."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.records.receipts import Receipt

Row = tuple[str, str, str]


def print_table(rows: Sequence[Row]) -> None:
    """The device, the date, the commit, and what was measured against what."""
    print(f"{device()}, {datetime.now(UTC):%Y-%m-%d}, commit {commit()}\n")
    print("| what | measured | against |\n| --- | --- | --- |")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def grid(n_receipts: int) -> tuple[BlockGrid, BlockGrid]:
    """Blocks and shards of a run with as many blocks."""
    shape = (64, 1024 * 1000, 1024 * (n_receipts // 1000))
    return BlockGrid(shape, (64, 1024, 1024)), BlockGrid(shape, (64, 512, 512))


def record(block_index: int, shards: tuple[int, ...] = (1, 2, 3, 4)) -> dict[str, object]:
    """A receipt of the usual size."""
    sums = tuple(f"{i:032x}" for i in shards)
    spent = {"read": 0.123456, "render": 12.345678, "write": 0.345678}
    box = Box.of_shape((64, 1024, 1024), (0, block_index, 0))
    checksums = {"em": sums, "uncertainty": sums}
    return Receipt(
        "0" * 16, shards, checksums, box, spent, 1, 10**7, 10**9, "node-17", "cpu", 4242, 1.8e9
    ).as_record()


def seconds(work: Callable[..., object], *arguments: object) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def device() -> str:
    """'x86_64, 2 cores, load 3.1': figures mean nothing without it."""
    load = os.getloadavg()[0]
    return f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, load {load:.1f}"


def commit() -> str:
    """The commit that is checked out."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
