"""What the pipeline costs beside what it cannot avoid: copying bytes, dask's tasks, reading receipts.

    python benchmarks/overhead.py [copy] [blocks] [parts] [receipts] [s3] [memory] [journal]
                                  [--sections 129] [--blocks 1000] [--repeats 3]

copy        the linear model, against tensorstore that reads the same input and writes the same output
blocks      blocks that do nothing, through the driver, against as many bare dask tasks
parts       blocks that do nothing but write their receipt, through `--part`, in one process without dask
receipts    opening a run that has 1e5 and 1e6 receipts: seconds, and peak memory of the process; and what
            `status` sums over them: CPU-seconds
s3          the same with the receipts in a bucket, on moto on loopback (needs the packages of the tests)
memory      peak memory of a process that goes through the missing work of 1e4, 1e5 and 1e6 blocks
journal     what a block pays for being named in heartbeats while it is worked on: CPU-time

The table names the device, the date and the commit. Ratios are of the best of the repeats, taken in turn.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from unittest import mock

import click
import numpy as np
from dask.base import annotate
from dask.delayed import delayed
from distributed import Client, Worker, WorkerPlugin, as_completed
from scipy import ndimage

from vemdiffuse_pipe import config
from vemdiffuse_pipe.config import RunFile, RunTable
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import Frame, exact_nm
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.render.block import Hardware
from vemdiffuse_pipe.running import receipts, stages, workers
from vemdiffuse_pipe.running.deaths import Deaths
from vemdiffuse_pipe.running.driver import drive
from vemdiffuse_pipe.running.endings import Endings
from vemdiffuse_pipe.running.engines import connect
from vemdiffuse_pipe.running.events import silent
from vemdiffuse_pipe.running.journal import Journal
from vemdiffuse_pipe.running.part_run import Shift
from vemdiffuse_pipe.running.parts import Part
from vemdiffuse_pipe.running.pipeline import Pipeline
from vemdiffuse_pipe.running.progress import Progress
from vemdiffuse_pipe.running.receipts import Receipt
from vemdiffuse_pipe.running.reconstruct import run
from vemdiffuse_pipe.running.retries import Patience
from vemdiffuse_pipe.running.segments import LINES_OF_AN_OBJECT, SegmentWriter, encode
from vemdiffuse_pipe.running.shards import Work
from vemdiffuse_pipe.running.stages import Workplace
from vemdiffuse_pipe.running.tally import Tally
from vemdiffuse_pipe.running.walltime import Deadline
from vemdiffuse_pipe.storage import StoredSink, create_sink, open_sink, open_source, parse_address
from vemdiffuse_pipe.volume import Voxels

RATIO = 5
SIDE = 1024
KINDS = ["copy", "blocks", "parts", "receipts", "s3", "memory", "journal"]
Row = tuple[str, str, str]


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(KINDS))
@click.option("--sections", default=129, show_default=True, help="Sections of 1024 x 1024 px to copy.")
@click.option("--blocks", "n_blocks", default=1000, show_default=True, help="Blocks that do nothing.")
@click.option("--repeats", default=3, show_default=True)
def main(parts: tuple[str, ...], sections: int, n_blocks: int, repeats: int) -> None:
    """Print the table of overheads."""
    chosen = parts or KINDS
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        if "copy" in chosen:
            rows += copy_rows(Path(folder), sections, repeats)
        if "blocks" in chosen:
            rows += block_rows(Path(folder), n_blocks, repeats)
        if "parts" in chosen:
            rows.append(part_row(Path(folder), n_blocks, repeats))
        if "s3" in chosen:
            rows.append(bucket_row(1_000_000))
        if "memory" in chosen:
            rows += memory_rows()
        if "receipts" in chosen:
            rows += [row for n in (100_000, 1_000_000) for row in receipt_rows(Path(folder), n)]
        if "journal" in chosen:
            rows += journal_rows(Path(folder), 100 * n_blocks)
    print(f"{device()}, {datetime.now(UTC):%Y-%m-%d}, commit {commit()}\n")
    print("| what | measured | against |\n| --- | --- | --- |")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def copy_rows(folder: Path, n_sections: int, repeats: int) -> Iterator[Row]:
    """The linear model and two bare copies, each going first in its turn.

    What was written is removed before the next one writes: otherwise one pays for the memory of the page
    cache and the next is given it (seen: a factor of 3).
    """
    sections = em_like((n_sections, SIDE, SIDE))
    source = store(folder / "source.zarr", sections, 1)
    planes = read_all(linear_run(source, folder / "warm.zarr"))
    ways: dict[str, Callable[[Path], object]] = {
        "linear": lambda output: linear_run(source, output),
        "one call": lambda output: copy_at_once(source, planes, output),
        "blocks in three threads": lambda output: copy_in_blocks(source, planes, output),
    }
    took: dict[str, list[float]] = {way: [] for way in ways}
    for i in range(repeats):
        turn = i % len(ways)
        for way in [*ways, *ways][turn : turn + len(ways)]:
            took[way].append(seconds(ways[way], folder / "out.zarr"))
            shutil.rmtree(folder / "out.zarr")
    rate, *copies = (planes.size / min(times) / 1e6 for times in took.values())
    for way, copied in zip(list(ways)[1:], copies, strict=True):
        yield (
            f"linear model: {planes.shape} planes from {sections.shape} sections",
            f"{rate:.0f} Mvoxel/s: {rate / copied:.2f} of the copy",
            f"tensorstore copies the same bytes, {way}: {copied:.0f} Mvoxel/s",
        )


def linear_run(source: str, output: Path) -> RunFile:
    """A whole run, its start and its end included."""
    run_file = config.parse(
        {"source": {"url": source}, "output": {"url": str(output)}, "model": {"name": "linear"}}
    )
    assert run(run_file).exit_code == 0
    return run_file


def copy_at_once(source: str, planes: Voxels, output: Path) -> None:
    """Read the same input and write the same output, in one call each."""
    opened = open_source(source)
    opened.read(opened.spec.frame.box)
    store(output, planes, RATIO)


def copy_in_blocks(source: str, planes: Voxels, output: Path) -> None:
    """Read the same input and write the same output, block by block in three threads."""
    opened, sink = open_source(source), new_sink(output, planes.shape, RATIO)
    blocks = BlockGrid(sink.spec.shape, (64, SIDE, SIDE))

    def copy_block(block_index: int) -> None:
        box = blocks.box(block_index)
        opened.read(Box((box.start[0] // RATIO, 0, 0), ((box.stop[0] - 1) // RATIO + 1, SIDE, SIDE)))
        sink.write("em", box, planes[box.slices])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(copy_block, range(blocks.n_blocks)))


def store(path: Path, voxels: Voxels, ratio: int) -> str:
    """Write a volume, and return where it is."""
    sink = new_sink(path, voxels.shape, ratio)
    sink.write("em", sink.spec.frame.box, voxels)
    return str(path / "em")


def new_sink(path: Path, shape: tuple[int, ...], ratio: int) -> StoredSink:
    """An output in the shards that a run would choose."""
    frame = Frame((shape[0], shape[1], shape[2]), exact_nm([40 / ratio, 8, 8]))
    return create_sink(
        path,
        frame,
        arrays=("em",),
        chunk_shape=(64, 64, 64),
        shard_shape=(64, 512, 512),
        attributes={},
        provenance=np.ones(shape[0], np.uint8),
    )


def read_all(run_file: RunFile) -> Voxels:
    """The planes that a run made."""
    sink = open_sink(run_file.output.url)
    return sink.read("em", sink.spec.frame.box)


def em_like(shape: tuple[int, int, int]) -> Voxels:
    """Smooth structures and noise: compresses as EM does, to about two thirds."""
    rng = np.random.default_rng(0)
    small = rng.normal(size=(shape[0], shape[1] // 4, shape[2] // 4)).astype(np.float32)
    smooth = ndimage.zoom(ndimage.gaussian_filter(small, 1.5), (1, 4, 4), order=1)
    grey = 128 + 400 * smooth + rng.normal(scale=10, size=shape).astype(np.float32)
    return np.clip(grey, 0, 255).astype(np.uint8)


class EmptyStages(WorkerPlugin):
    """Makes blocks do nothing but, where wanted, write a receipt. `folder`: of the receipts, or none."""

    def __init__(self, folder: str = "") -> None:
        self.folder = folder

    def setup(self, worker: Worker) -> None:
        """Replace the stages of this process."""
        writer = SegmentWriter(parse_address(self.folder)) if self.folder else None
        workers._PLACES["empty"] = None  # type: ignore[assignment]
        stages.read = lambda place, index, box: index  # type: ignore[assignment,misc,return-value]
        stages.render = lambda place, index: index  # type: ignore[assignment,misc,return-value]
        stages.write = lambda place, index: writer and writer.append(record(index))  # type: ignore


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

    def set_aside(self, work: Work, reason: str, n_attempts: int) -> None:
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

    def note(place: Workplace, index: int) -> None:
        place.receipts.append(record(index, tuple(shards.touching(blocks.box(index)))))

    empty = {"read": lambda _, index, box: index, "render": second, "store": second, "note": note}
    with ExitStack() as stack:
        for name, stage in empty.items():
            stack.enter_context(mock.patch.object(stages, name, stage))
        started = time.perf_counter()
        progress = Progress(parse_address(output), "0" * 16, blocks, shards)
        writer = stack.enter_context(closing(SegmentWriter(parse_address(output / receipts.FOLDER))))
        journal = stack.enter_context(Journal(parse_address(output), blocks.block_shape))
        place = Workplace(None, "", None, None, None, writer, Hardware(), Patience(), silent, journal)  # type: ignore
        pipeline = stack.enter_context(Pipeline(place, SimpleQueue(), progress.is_missing))
        deaths = Deaths(parse_address(output), progress, journal)
        shift = Shift(progress, pipeline, Endings(Ignore(progress)), Deadline(None), deaths, n_blocks)
        shift.work_off(Part(1, 1), columns=False)
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


def memory_rows() -> Iterator[Row]:
    """Peak memory while all missing work is gone through, nothing of it done."""
    for side in (100, 316, 1000):
        program = MEMORY.format(shape=(64 * 100, 1024 * side // 10, 1024 * side // 10))
        peak, n = run_python(program)
        yield (f"{n:.0f} missing blocks gone through, in columns", f"peak {peak / 1e6:.0f} MB", "")


MEMORY = """
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.running.parts import Part
from vemdiffuse_pipe.running.shards import ShardSet, missing_work
from vemdiffuse_pipe.running.stages import peak_bytes
blocks, shards = BlockGrid({shape}, (64, 1024, 1024)), BlockGrid({shape}, (64, 512, 512))
work = missing_work(blocks, ShardSet(shards), columns=True, share=Part(1, 1).own)
n = sum(1 for _ in work)
print(peak_bytes(), n)
"""


def bucket_row(n_receipts: int) -> Row:
    """A process that opens a run whose receipts are in a bucket."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from servers import BUCKET, client, s3

    blocks, shards = grid(n_receipts)
    os.environ.update(AWS_ACCESS_KEY_ID="none", AWS_SECRET_ACCESS_KEY="none")
    with s3() as endpoint:
        for first in range(0, n_receipts, LINES_OF_AN_OBJECT):
            indices = range(first, min(n_receipts, first + LINES_OF_AN_OBJECT))
            lines = [encode(record(i, tuple(shards.touching(blocks.box(i))))) for i in indices]
            key = f"run/{receipts.FOLDER}/node-{first}.jsonl"
            client(endpoint).put_object(Bucket=BUCKET, Key=key, Body=b"".join(lines))
        took, peak = opening(f"s3+{endpoint}/{BUCKET}/run", n_receipts)
    return (
        f"{n_receipts:.0e} receipts in a bucket, opened",
        f"{took:.2f} s, peak {peak / 1e6:.0f} MB",
        f"{-(-n_receipts // LINES_OF_AN_OBJECT)} objects of {LINES_OF_AN_OBJECT} lines, moto on loopback",
    )


def receipt_rows(folder: Path, n_receipts: int) -> Iterator[Row]:
    """A process that opens the run, and one that opens an empty one."""
    output = folder / f"receipts{n_receipts}"
    write_receipts(output, n_receipts)
    (took, peak), (_, empty) = (opening(where, n_receipts) for where in (output, folder / "no receipts"))
    yield (
        f"{n_receipts:.0e} receipts (4 shards, 2 arrays), opened",
        f"{took:.2f} s, peak {peak / 1e6:.0f} MB",
        f"{disk_bytes(output) / 1e6:.0f} MB on disk; without receipts {empty / 1e6:.0f} MB",
    )
    began = time.process_time()
    tally = Tally(time.time())
    for segment, cost in receipts.read_costs(parse_address(output), "0" * 16):
        tally.add(segment, cost)
    assert tally.n_receipts == n_receipts
    yield (
        f"{n_receipts:.0e} receipts, summed for status",
        f"{time.process_time() - began:.1f} CPU-seconds",
        "",
    )


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


def grid(n_receipts: int) -> tuple[BlockGrid, BlockGrid]:
    """Blocks and shards of a run with as many blocks."""
    shape = (64, 1024 * 1000, 1024 * (n_receipts // 1000))
    return BlockGrid(shape, (64, 1024, 1024)), BlockGrid(shape, (64, 512, 512))


def write_receipts(output: Path, n_receipts: int) -> None:
    """The receipts of a complete run, as 16 processes would leave them."""
    target = output / receipts.FOLDER
    target.mkdir(parents=True)
    blocks, shards = grid(n_receipts)
    for part in range(16):
        with (target / f"{part}.jsonl").open("wb") as file:
            for i in range(part, n_receipts, 16):
                file.write(encode(record(i, tuple(shards.touching(blocks.box(i))))))


def record(block_index: int, shards: tuple[int, ...] = (1, 2, 3, 4)) -> dict[str, object]:
    """A receipt of the usual size."""
    sums = tuple(f"{i:032x}" for i in shards)
    spent = {"read": 0.123456, "render": 12.345678, "write": 0.345678}
    box = Box.of_shape((64, 1024, 1024), (0, block_index, 0))
    checksums = {"em": sums, "uncertainty": sums}
    return Receipt(
        "0" * 16, shards, checksums, box, spent, 1, 10**7, 10**9, "node-17", "cpu", 4242, 1.8e9
    ).as_record()


OPENING = """
import sys, time
sys.path.insert(0, sys.argv[1])
from overhead import grid
from vemdiffuse_pipe.running.progress import Progress
from vemdiffuse_pipe.running.stages import peak_bytes
from vemdiffuse_pipe.storage import parse_address
started = time.perf_counter()
progress = Progress(parse_address(sys.argv[2]), "0" * 16, *grid(int(sys.argv[3])))
n_missing = progress.n_missing()
took = time.perf_counter() - started
print(took, peak_bytes())
"""


def opening(output: Path | str, n_receipts: int) -> tuple[float, float]:
    """Seconds to open a run and count what is missing, and the peak memory of the process."""
    return run_python(OPENING, str(Path(__file__).parent), str(output), str(n_receipts))


def run_python(program: str, *arguments: str) -> tuple[float, float]:
    """The two numbers that a program prints, in a process of its own."""
    command = [sys.executable, "-c", program, *arguments]
    first, last = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(first), float(last)


def disk_bytes(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


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


if __name__ == "__main__":
    main()
