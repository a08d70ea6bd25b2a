"""What the pipeline costs beside what it cannot avoid: dask's tasks, a receipt's sync, the journal.

    python benchmarks/overhead.py [blocks] [parts] [journal] [--blocks 1000] [--repeats 3]

blocks      blocks that do nothing, through the driver, against as many bare dask tasks
parts       blocks that do nothing but write their receipt, through `--part`, in one process without dask
journal     what a block pays for being named in heartbeats while it is worked on: CPU-time

Ratios are of the best of the repeats, taken in turn.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple
from unittest import mock

import click
from dask.base import annotate
from dask.delayed import delayed
from distributed import Client, Worker, WorkerPlugin, as_completed
from figures import Row, grid, print_table, record, seconds
from vemdiffuse_pipe.running.local.worker import LocalWorker
from vemdiffuse_pipe.running.outcomes import FailurePolicy

from vemdiffuse_pipe.cluster.engines import connect
from vemdiffuse_pipe.cluster.walltime import Deadline
from vemdiffuse_pipe.config import RunTable
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.records import receipts
from vemdiffuse_pipe.records.events import silent
from vemdiffuse_pipe.records.journal import Journal
from vemdiffuse_pipe.records.parts import Part
from vemdiffuse_pipe.records.segments import SegmentWriter
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.render.block import Hardware
from vemdiffuse_pipe.running import stages
from vemdiffuse_pipe.running.crashes import CrashTracker
from vemdiffuse_pipe.running.dask import worker as workers
from vemdiffuse_pipe.running.dask.driver import drive
from vemdiffuse_pipe.running.local.pipeline import Pipeline
from vemdiffuse_pipe.running.progress import Progress
from vemdiffuse_pipe.running.stages import WorkerContext
from vemdiffuse_pipe.storage import parse_address
from vemdiffuse_pipe.storage.retry import RetryPolicy

KINDS = ["blocks", "parts", "journal"]


@click.command()
@click.argument("kinds", nargs=-1, type=click.Choice(KINDS))
@click.option("--blocks", "n_blocks", default=1000, show_default=True, help="Blocks that do nothing.")
@click.option("--repeats", default=3, show_default=True)
def main(kinds: tuple[str, ...], n_blocks: int, repeats: int) -> None:
    """Print the table of overheads."""
    chosen = kinds or KINDS
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        if "blocks" in chosen:
            rows += block_rows(Path(folder), n_blocks, repeats)
        if "parts" in chosen:
            rows.append(part_row(Path(folder), n_blocks, repeats))
        if "journal" in chosen:
            rows += journal_rows(Path(folder), 100 * n_blocks)
    print_table(rows)


class Nothing(NamedTuple):
    """What goes through the stages of an empty block."""

    block_index: int
    output_box: Box


class EmptyStages(WorkerPlugin):
    """Makes blocks do nothing but, where wanted, write a receipt. `folder`: of the receipts, or none."""

    def __init__(self, folder: str = "") -> None:
        self.folder = folder

    def setup(self, worker: Worker) -> None:
        """Replace the stages of this process."""
        writer = SegmentWriter(parse_address(self.folder)) if self.folder else None
        workers._PLACES["empty"] = None  # type: ignore[assignment]
        stages.read = lambda place, index, box: Nothing(index, box)  # type: ignore[assignment,misc,return-value]
        stages.render = second  # type: ignore[assignment]
        stages.write = lambda _, done: writer and writer.append(record(done.block_index))  # type: ignore


def block_rows(folder: Path, n_blocks: int, repeats: int) -> Iterator[Row]:
    """Empty blocks on one worker in this process, and on two processes."""
    for name, table in {
        "in this process": RunTable(),
        "in 2 processes": RunTable(workers=2, engine="local"),
    }.items():
        with connect(table) as client:
            bare, empty, receipted = block_ms(client, folder / table.engine, n_blocks, table.workers, repeats)
        yield (
            f"{n_blocks} empty blocks {name}",
            f"{empty:.2f} ms a block: {empty / bare:.2f} of bare tasks; with a receipt {receipted:.2f} ms",
            f"3 bare dask tasks a block: {bare:.2f} ms",
        )


def block_ms(client: Client, folder: Path, n_blocks: int, n_workers: int, repeats: int) -> Iterator[float]:
    """Milliseconds a block: by dask alone, through the driver, and with receipts."""
    window = 3 * n_workers
    times: dict[str, list[float]] = {"bare": [], "empty": [], "receipts": []}
    for i in range(repeats):
        times["bare"].append(seconds(bare_tasks, client, n_blocks, window))
        for kind, where in (("empty", ""), ("receipts", str(folder / str(i)))):
            client.register_plugin(EmptyStages(where), name=f"{kind}{i}")
            times[kind].append(seconds(empty_blocks, client, n_blocks, window))
    return (min(each) / n_blocks * 1e3 for each in times.values())


class Ignore:
    """A reporter that keeps nothing, or in memory what is done."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress

    def done(self, work: Work) -> None:
        """What a run does, too, so that nothing is done twice."""
        if self._progress is not None:
            self._progress.enter_done(work)

    def mark_failed(self, work: Work, reason: str, n_attempts: int) -> None:
        """A bug of the benchmark."""
        raise AssertionError(reason)


def empty_blocks(client: Client, n_blocks: int, window: int) -> None:
    """Through the driver."""
    work = (Work(i, Box.of_shape((64, 1024, 1024), (64 * i, 0, 0))) for i in range(n_blocks))
    assert drive(client, "empty", work, window, Ignore(), SimpleQueue()) == ""


def bare_tasks(client: Client, n_blocks: int, window: int) -> None:
    """The same graph and the same window, by dask alone."""
    graphs = (bare_graph() for _ in range(n_blocks))
    futures = client.compute(list(islice(graphs, window)), optimize_graph=False)
    completed = as_completed(futures, loop=client.loop)
    for _ in completed:
        for graph in islice(graphs, 1):
            completed.add(client.compute(graph, optimize_graph=False))


def same(value: int) -> int:
    """A task that does nothing."""
    return value


def bare_graph() -> object:
    """Three tasks in a row, the second on a GPU."""
    task = delayed(same, pure=False)
    first = task(1)
    with annotate(resources={"GPU": 1}):
        second = task(first)
    return task(second)


def part_row(folder: Path, n_blocks: int, repeats: int) -> Row:
    """Empty blocks through `--part 1/1`, receipts included."""
    took = min(part_seconds(folder / f"part{i}", n_blocks) for i in range(repeats))
    return (
        f"{n_blocks} blocks that only write their receipt, `--part 1/1`",
        f"{n_blocks / took:.0f} blocks/s",
        f"one sync at a time: {1 / sync_s(folder):.0f}/s on this disk",
    )


def part_seconds(output: Path, n_blocks: int) -> float:
    """Seconds for all blocks of a run, from opening it to its last receipt."""
    blocks, shards = grid(max(1000, n_blocks))

    def note(place: WorkerContext, index: int) -> None:
        place.receipts.append(record(index, tuple(shards.touching(blocks.box(index)))))

    empty = {"read": lambda _, index, box: index, "render": second, "store": second, "note": note}
    with ExitStack() as stack:
        for name, stage in empty.items():
            stack.enter_context(mock.patch.object(stages, name, stage))
        started = time.perf_counter()
        progress = Progress(parse_address(output), "0" * 16, blocks, shards)
        writer = stack.enter_context(closing(SegmentWriter(parse_address(output / receipts.FOLDER))))
        journal = stack.enter_context(Journal(parse_address(output), blocks.block_shape))
        place = WorkerContext(None, "", None, None, None, writer, Hardware(), RetryPolicy(), silent, journal)  # type: ignore
        pipeline = stack.enter_context(Pipeline(place, SimpleQueue(), progress.is_missing))
        deaths = CrashTracker(parse_address(output), progress, journal)
        shift = LocalWorker(
            progress, pipeline, FailurePolicy(Ignore(progress)), Deadline(None), deaths, n_blocks
        )
        shift.run(Part(1, 1), columns=False)
        return time.perf_counter() - started


def second(first: object, value: object) -> object:
    """A stage that does nothing."""
    return value


def sync_s(folder: Path) -> float:
    """Seconds to append a line and make it durable."""
    writer = SegmentWriter(parse_address(folder / "syncs"))
    writer.append({})
    took = seconds(lambda: [writer.append({}) for _ in range(100)]) / 100
    writer.close()
    return took


def journal_rows(folder: Path, n_blocks: int) -> Iterator[Row]:
    """Four stages a block, with the thread that writes heartbeats far oftener than it would."""
    with Journal(parse_address(folder / "journal"), (64, 1024, 1024), every_s=0.1) as journal:
        began = time.process_time()
        for i in range(n_blocks):
            for _ in range(4):
                with journal.working_on(i):
                    pass
        spent = time.process_time() - began
    yield "a block in the journal", f"{spent / n_blocks * 1e6:.0f} us of CPU, heartbeats every 0.1 s", ""


if __name__ == "__main__":
    main()
