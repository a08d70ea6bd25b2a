"""Weak scaling with a model that sleeps like a GPU: what share of the time are the workers busy?

    python benchmarks/scaling.py --workers 1 --workers 4 --workers 16 --workers 64

Each worker gets as many blocks; a block has 20 tiles of 50 ms. Busy: the share of the time that workers spend
in tiles, while all of them are at work: from when the last has begun its first tile to when the first has
ended its last. Starting processes is not counted: here 64 of them share two cores for it. Beside it
dask.array.map_overlap with the same kernel on the same blocks, its result stored as zarr. All processes share
the cores of this machine: that, and not the network of a cluster, is what is measured here.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from vemdiffuse_pipe.cluster import resources
from vemdiffuse_pipe.config import RunFile, parse
from vemdiffuse_pipe.geometry.frame import Frame, exact_nm
from vemdiffuse_pipe.running import stages
from vemdiffuse_pipe.running.reconstruct import run
from vemdiffuse_pipe.running.stages import ComputedBlock, LoadedBlock, WorkerContext
from vemdiffuse_pipe.storage import create_sink
from vemdiffuse_pipe.volume import Voxels

TILES, TILE_S = 20, 0.05
BLOCK = (20, 64, 64)
RATIO = 5
LOG = "SCALING_LOG"
_compute = stages.compute


def sleep_like_a_gpu() -> None:
    """The tiles of one block, and a line for them in the log that all processes share."""
    began = time.time()
    for _ in range(TILES):
        time.sleep(TILE_S)
    log = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{os.getpid()} {began} {time.time()}\n".encode())
    os.close(log)


def compute(context: WorkerContext, block: LoadedBlock) -> ComputedBlock:
    sleep_like_a_gpu()
    return _compute(context, block)


stages.compute = compute  # in worker processes too: they import this file
# The bound counts in every process what 64 of them share: the code of torch and its like.
resources.check_size = lambda *_: None  # type: ignore[assignment]


def write_source(folder: Path, n_blocks: int) -> str:
    """Sections for a row of blocks along x."""
    shape = (2 * (BLOCK[0] // RATIO), BLOCK[1], BLOCK[2] * n_blocks // 2)
    frame = Frame(shape, exact_nm([10 * RATIO, 10, 10]))
    sink = create_sink(
        folder / "source.zarr",
        frame,
        arrays=("em",),
        chunk_shape=(1, *BLOCK[1:]),
        shard_shape=(1, *BLOCK[1:]),
        attributes={},
        provenance=np.ones(shape[0], np.uint8),
    )
    sink.write("em", frame.box, np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    return str(folder / "source.zarr" / "em")


def run_file_of(folder: Path, source: str, workers: int) -> RunFile:
    """The run that is measured."""
    return parse(
        {
            "source": {"url": source, "bad_sections": "keep"},
            "output": {"url": str(folder / "out.zarr"), "chunk_shape": BLOCK, "shard_shape": BLOCK},
            "model": {"name": "linear", "ratio": RATIO},
            "run": {"engine": "local", "workers": workers, "block_shape": BLOCK},
        }
    )


def overlapped(folder: Path, source: str, workers: int) -> None:
    """The peer: map_overlap over as many blocks of the same size, on as many workers of one thread."""
    import dask.array as da
    from distributed import Client, LocalCluster

    sections = da.from_zarr(f"{source}/0")
    planes = da.repeat(sections[:-1], RATIO, axis=0).rechunk(BLOCK)
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        done = planes.map_overlap(_asleep, depth=8, boundary="reflect", dtype=np.uint8)
        client.compute(done.to_zarr(str(folder / "peer.zarr"), compute=False), sync=True)


def _asleep(block: Voxels) -> Voxels:
    if block.size:  # dask calls it with nothing, to learn the type
        sleep_like_a_gpu()
    return block


def busy(folder: Path, name: str, work: Callable[[], object]) -> tuple[float, float, int]:
    """(share of the time in which workers were in tiles, seconds of it all, blocks)."""
    os.environ[LOG] = str(folder / f"{name}.log")
    started = time.monotonic()
    work()
    seconds = time.monotonic() - started
    spans: dict[int, list[tuple[float, float]]] = {}
    for line in Path(os.environ[LOG]).read_text().splitlines():
        process, begin, end = line.split()
        spans.setdefault(int(process), []).append((float(begin), float(end)))
    first = max(min(begin for begin, _ in own) for own in spans.values())
    last = min(max(end for _, end in own) for own in spans.values())
    every = [span for own in spans.values() for span in own]
    inside = sum(max(0.0, min(end, last) - max(begin, first)) for begin, end in every)
    return inside / (len(spans) * (last - first)), seconds, len(every)


@click.command()
@click.option("--workers", default=(1, 4, 16, 64), multiple=True, show_default=True)
@click.option("--blocks", default=16, show_default=True, help="Of each worker.")
@click.option("--peer/--no-peer", default=True, show_default=True)
def main(workers: tuple[int, ...], blocks: int, peer: bool) -> None:
    """Print a table."""
    click.echo("| workers | blocks | busy | in all | map_overlap busy | in all |\n" + "| --- " * 6 + "|")
    for n in workers:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            run_file = run_file_of(folder, write_source(folder, n * blocks), n)
            share, seconds, n_blocks = busy(folder, "ours", lambda: run(run_file))  # noqa: B023
            row = f"| {n} | {n_blocks} | {share:.1%} | {seconds:.1f} s |"
            if peer:
                share, seconds, _ = busy(
                    folder,
                    "peer",
                    lambda: overlapped(folder, run_file.source.url, n),  # noqa: B023
                )
                row += f" {share:.1%} | {seconds:.1f} s |"
            click.echo(row)


if __name__ == "__main__":
    main()
