"""The linear model against a bare copy: tensorstore reads the same input and writes the same output.

    python benchmarks/copying.py [--sections 129] [--repeats 3]

Ratios are of the best of the repeats, taken in turn.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
from figures import Row, print_table, seconds
from scipy import ndimage

from vemdiffuse_pipe import config
from vemdiffuse_pipe.config import RunFile
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import Frame, exact_nm
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.running.reconstruct import run
from vemdiffuse_pipe.storage import StoredSink, create_sink, open_sink, open_source
from vemdiffuse_pipe.volume import Voxels

RATIO = 5
SIDE = 1024


@click.command()
@click.option("--sections", default=129, show_default=True, help="Sections of 1024 x 1024 px to copy.")
@click.option("--repeats", default=3, show_default=True)
def main(sections: int, repeats: int) -> None:
    """Print a row for each way of copying."""
    with tempfile.TemporaryDirectory() as folder:
        print_table(list(copy_rows(Path(folder), sections, repeats)))


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


if __name__ == "__main__":
    main()
