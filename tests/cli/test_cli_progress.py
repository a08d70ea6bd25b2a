"""What is seen of a run while it runs."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

from small_volumes import VOXEL_SIZE

from vemdiffuse_pipe.cli.progress import Lines, Meter, progress
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.records.events import (
    AttemptFailed,
    BlockDone,
    BlockMarkedFailed,
    FailedBlock,
    PlanesDone,
    RunStarted,
)


def started(n_voxels: int) -> RunStarted:
    return RunStarted("planes every 10 nm", "5d41402abc4b2a76", "threads", 1, 2, n_voxels)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_planes_move_the_count_inside_a_block() -> None:
    meter = Meter()
    meter.on_event(started(1000))
    meter.on_event(PlanesDone(300))
    assert meter.done == 300
    meter.on_event(BlockDone(0, 500))
    assert meter.done == 500


def test_the_count_never_exceeds_the_work() -> None:
    meter = Meter()
    meter.on_event(started(1000))
    for _ in range(9):
        meter.on_event(PlanesDone(300))  # a block that was retried is counted twice
    assert meter.done == 1000


def test_lines_come_every_half_minute_at_most() -> None:
    stream, clock = io.StringIO(), Clock()
    hear = Lines(stream, clock).on_event
    hear(started(100_000))
    for second in range(100):
        clock.now = float(second)
        hear(PlanesDone(1000))
    title, *lines = stream.getvalue().splitlines()
    assert title == "planes every 10 nm"
    assert lines == [
        "31,000 of 100,000 voxels, 1,033 voxels/s, 67 s left",
        "61,000 of 100,000 voxels, 1,017 voxels/s, 38 s left",
        "91,000 of 100,000 voxels, 1,011 voxels/s, 8.9 s left",
    ]


def test_trouble_is_said_at_once() -> None:
    stream = io.StringIO()
    hear = Lines(stream, Clock()).on_event
    hear(started(1000))
    hear(AttemptFailed(7, "the network is away", 1, "read"))
    hear(BlockMarkedFailed(FailedBlock(7, Box((0, 0, 0), (1, 2, 3)), "it stayed away", 3)))
    assert stream.getvalue().splitlines()[1:] == [
        "block 7 failed (attempt 1): the network is away",
        "block 7 failed: it stayed away",
    ]


def test_elsewhere_than_on_a_terminal_there_is_no_bar() -> None:
    stream = io.StringIO()
    with progress(stream) as hear:
        assert isinstance(getattr(hear, "__self__", None), Lines)


def test_a_terminal_shows_a_bar_and_stdout_stays_the_result(stack: Path) -> None:
    ours, theirs = pty.openpty()
    command = ["reconstruct", stack, "out.zarr", *VOXEL_SIZE, "--model", "linear"]
    done = subprocess.run(
        [sys.executable, "-m", "vemdiffuse_pipe", *command], stdout=subprocess.PIPE, stderr=theirs, text=True
    )
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert done.returncode == 0
    assert done.stdout == "out.zarr is complete: 1 of 1 blocks are done, 1 rendered now\n"
    assert "voxels/s" in shown
    assert "dz / dxy is 5: planes every 10 nm, pixels 10 nm, isotropic" in " ".join(shown.split())
