"""Progress of a run on stderr: a bar on a terminal, elsewhere a line every half minute."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from vemdiffuse_pipe.cli.format import show_count, show_duration
from vemdiffuse_pipe.records.events import (
    AttemptFailed,
    BlockDone,
    BlockMarkedFailed,
    DashboardServed,
    Event,
    Listener,
    PlanesDone,
    RunStarted,
)

SECONDS_BETWEEN_LINES = 30.0


@contextmanager
def progress(stream: TextIO) -> Iterator[Listener]:
    """A listener that shows the run on `stream` for as long as the context lasts."""
    if not stream.isatty():
        yield Lines(stream).on_event
        return
    columns = (TextColumn("{task.description}"), BarColumn(), VoxelsPerSecond(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=stream)) as bar:
        yield Bar(bar).on_event


class Meter:
    """Voxels done in this run, counted from events: whole blocks, or planes where their events come sooner.

    Planes of a block count before the block is done, so the count moves inside a block.
    """

    def __init__(self) -> None:
        self.total = 0
        self._in_blocks = 0
        self._in_planes = 0

    def on_event(self, event: Event) -> None:
        """Count what happened."""
        if isinstance(event, RunStarted):
            self.total = event.n_voxels
        elif isinstance(event, PlanesDone):
            self._in_planes += event.n_voxels
        elif isinstance(event, BlockDone):
            self._in_blocks += event.n_voxels

    @property
    def done(self) -> int:
        """Voxels done, at most all of them."""
        return min(self.total, max(self._in_blocks, self._in_planes))


class Bar:
    """Moves a bar, and prints above it what failed."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._meter = Meter()
        self._task: TaskID | None = None

    def on_event(self, event: Event) -> None:
        """Show one event."""
        self._meter.on_event(event)
        if isinstance(event, RunStarted):
            self._bar.console.print(event.title, highlight=False)
            self._task = self._bar.add_task("voxels", total=self._meter.total)
        elif self._task is not None:
            self._bar.update(self._task, completed=self._meter.done)
        if sentence := notice(event):
            self._bar.console.print(sentence, highlight=False, markup=False)


class VoxelsPerSecond(ProgressColumn):
    """'1.2e+06 voxels/s'."""

    def render(self, task: Task) -> Text:
        """The speed of the last seconds."""
        return Text(f"{show_count(task.speed or 0)} voxels/s")


class Lines:
    """Prints a line at the start, then one every half minute at most, and one for everything that failed."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._meter = Meter()
        self._started = self._last = clock()

    def on_event(self, event: Event) -> None:
        """Show one event, if it is time for a line or something failed."""
        self._meter.on_event(event)
        now = self._clock()
        if isinstance(event, RunStarted):
            self._started = self._last = now
            self._print(event.title)
        elif sentence := notice(event):
            self._print(sentence)
        elif now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            self._print(self._how_far(now - self._started))

    def _how_far(self, seconds: float) -> str:
        done, total = self._meter.done, self._meter.total
        speed = done / seconds
        left = show_duration((total - done) / speed) if done else "unknown time"
        return f"{show_count(done)} of {show_count(total)} voxels, {show_count(speed)} voxels/s, {left} left"

    def _print(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()


def notice(event: Event) -> str | None:
    """The line of an event that has one: failures, and where the dashboard is; None for others."""
    if isinstance(event, DashboardServed):
        return f"dask's dashboard is at {event.address}"
    if isinstance(event, AttemptFailed):
        return f"block {event.block_index} failed (attempt {event.attempt}): {event.reason}"
    if isinstance(event, BlockMarkedFailed):
        return f"block {event.block.block_index} failed: {event.block.reason}"
    return None
