"""The state of all blocks as a picture: a panel for each layer of blocks along z, a cell for each block.

    +-----+ +-----+ +-----+
    |##o..| |##...| |.....|      layers from the left, then downwards; in a panel y is down, x to the right
    |#!...| |.....| |.....|      # done   o running   ! failed   . missing
    +-----+ +-----+ +-----+

However many blocks there are, the picture is at most about 1700 px a side: layers and cells are taken
together. A cell of many blocks is as green as its share of blocks that are done; one block of it that is
marked failed, or running, gives it that colour.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vemdiffuse_pipe.geometry.box import Zyx
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.monitor.status import running_blocks
from vemdiffuse_pipe.output.mask import read_outside
from vemdiffuse_pipe.output.run_output import RunOutput, open_run_output
from vemdiffuse_pipe.records import failures
from vemdiffuse_pipe.records.heartbeats import read_heartbeats
from vemdiffuse_pipe.records.receipts import read_done
from vemdiffuse_pipe.records.shards import ShardSet, missing_by_layer

MAX_PANELS = 64
MAX_CELLS = 1600  # along a side of all panels together
MAX_CELL_PX = 16
WANTED_PX = 640
MARGIN_PX, GAP_PX, TEXT_PX = 12, 4, 14
MIN_PX = 420  # wide, so that the legend has room

# Distinct also without red or green vision: Okabe and Ito, Color Universal Design, 2008.
COLOURS = {
    "done": (0, 158, 115),
    "running": (0, 114, 178),
    "failed": (213, 94, 0),
    "missing": (221, 221, 221),
    "skipped": (96, 96, 96),
}


@dataclass(frozen=True, slots=True)
class Cells:
    """What is drawn."""

    colours: NDArray[np.uint8]
    """A colour for each cell, (z, y, x, 3)."""
    blocks_per_cell: Zyx
    """Blocks that a cell stands for, zyx."""
    counts: dict[str, int]
    """How many blocks are in each state."""


def block_map(
    output: str | RunOutput, *, now: float | None = None, oldest_s: float | None = None
) -> Image.Image:
    """The picture of the run of `output`, RGB. Raises as `status`, and takes what it takes."""
    now = time.time() if now is None else now
    output = output if isinstance(output, RunOutput) else open_run_output(output)
    records, blocks, shards = output.records, output.blocks, output.shards
    beats = read_heartbeats(records, now, oldest_s).living
    done = read_done(records, output.digest, shards)
    failed_blocks = {mark.block.block_index for mark in failures.read_marks(records, blocks, done)}
    outside = read_outside(records, shards)
    return draw(cells_of(blocks, done, running_blocks(beats, blocks, done), failed_blocks, outside))


def cells_of(
    blocks: BlockGrid,
    done: ShardSet,
    running: Iterable[int],
    failed_blocks: Iterable[int],
    skipped: ShardSet | None = None,
) -> Cells:
    """The state of every block, taken together until it fits. Memory: the picture, and one layer of blocks.

    `running`, `failed_blocks`: block indices; what is marked failed is not running. `skipped`: shards
    outside the mask.
    """
    failed_blocks = set(failed_blocks)
    running = set(running) - failed_blocks
    per_cell = _blocks_per_cell(blocks.counts)
    skipped = ShardSet(done.grid) if skipped is None else skipped
    n_skipped = _pooled(blocks, skipped, per_cell)
    n_done = _pooled(blocks, done | skipped, per_cell) - n_skipped
    n_all = _sizes(blocks.counts, per_cell)
    colours = sum(
        np.multiply.outer(n / n_all, np.array(COLOURS[state], np.float64))
        for state, n in (("done", n_done), ("skipped", n_skipped), ("missing", n_all - n_done - n_skipped))
    )
    cells = np.asarray(colours).round().astype(np.uint8)
    for state, members in (("running", running), ("failed", failed_blocks)):
        for index in members:
            cells[_cell(blocks, index, per_cell)] = COLOURS[state]
    counts = {
        "done": int(n_done.sum()),
        "running": len(running),
        "failed": len(failed_blocks),
        "missing": blocks.n_blocks - int(n_done.sum() + n_skipped.sum()) - len(running) - len(failed_blocks),
        "skipped": int(n_skipped.sum()),
    }
    return Cells(cells, per_cell, counts)


def draw(cells: Cells) -> Image.Image:
    """The panels on white, under a line that says what a cell is, above the legend."""
    panels, n_columns = cells.colours, _columns(cells.colours.shape[:3])
    n, ny, nx, _ = panels.shape
    n_rows = ceil(n / n_columns)
    scale = max(1, min(MAX_CELL_PX, WANTED_PX // max(n_columns * nx, n_rows * ny)))
    step_y, step_x = ny * scale + GAP_PX, nx * scale + GAP_PX
    top = 2 * MARGIN_PX + TEXT_PX
    width = max(MIN_PX, 2 * MARGIN_PX + n_columns * step_x - GAP_PX)
    page = Image.new("RGB", (width, top + n_rows * step_y + 2 * MARGIN_PX + 2 * TEXT_PX), "white")
    for i, panel in enumerate(panels):
        row, column = divmod(i, n_columns)
        image = Image.fromarray(panel.repeat(scale, axis=0).repeat(scale, axis=1))
        page.paste(image, (MARGIN_PX + column * step_x, top + row * step_y))
    _write(page, cells, top + n_rows * step_y + MARGIN_PX)
    return page


def _write(page: Image.Image, cells: Cells, legend_y: int) -> None:
    """The title, and for each state its colour, its name and how many blocks are in it."""
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(TEXT_PX)
    z, y, x = cells.blocks_per_cell
    contents = "a block" if z * y * x == 1 else f"{z} x {y} x {x} blocks"
    draw.text(
        (MARGIN_PX, MARGIN_PX), f"a panel: a layer along z; a cell: {contents}", fill="black", font=font
    )
    text_x, text_y = MARGIN_PX, legend_y
    for state, n in cells.counts.items():
        text = f"{state} {n:,}"
        length = TEXT_PX + 4 + ceil(font.getlength(text)) + MARGIN_PX
        if text_x + length > page.width:
            text_x, text_y = MARGIN_PX, text_y + TEXT_PX + 4
        draw.rectangle((text_x, text_y, text_x + TEXT_PX - 1, text_y + TEXT_PX - 1), fill=COLOURS[state])
        draw.text((text_x + TEXT_PX + 4, text_y), text, fill="black", font=font)
        text_x += length


def _blocks_per_cell(counts: Zyx) -> Zyx:
    """How many blocks a cell takes, so that the picture stays small."""
    nz, ny, nx = counts
    deep = ceil(nz / MAX_PANELS)
    panels = ceil(nz / deep), ny, nx
    n_columns = _columns(panels)
    wide = ceil(max(n_columns * nx, ceil(panels[0] / n_columns) * ny) / MAX_CELLS)
    return deep, min(wide, ny), min(wide, nx)


def _columns(panels: tuple[int, ...]) -> int:
    """Panels beside each other, so that the whole is about square."""
    n, ny, nx = panels
    return max(1, min(n, round(sqrt(n * ny / nx))))


def _pooled(blocks: BlockGrid, members: ShardSet, per_cell: Zyx) -> NDArray[np.int64]:
    """How many blocks of each cell have all of their shards in a set: (z, y, x)."""
    deep, high, wide = per_cell
    layers: list[NDArray[np.int64]] = []
    for z, missing in enumerate(missing_by_layer(blocks, members)):
        counts = np.add.reduceat((~missing).astype(np.int64), np.arange(0, missing.shape[0], high), axis=0)
        counts = np.add.reduceat(counts, np.arange(0, missing.shape[1], wide), axis=1)
        if z % deep == 0:
            layers.append(counts)
        else:
            layers[-1] += counts
    return np.stack(layers)


def _sizes(counts: Zyx, per_cell: Zyx) -> NDArray[np.int64]:
    """How many blocks each cell has: fewer at the edges."""
    z, y, x = (np.minimum(m, n - np.arange(0, n, m)) for n, m in zip(counts, per_cell, strict=True))
    return np.multiply.outer(np.multiply.outer(z, y), x)


def _cell(blocks: BlockGrid, index: int, per_cell: Zyx) -> Zyx:
    _, ny, nx = blocks.counts
    z, y, x = index // (ny * nx), index // nx % ny, index % nx
    return z // per_cell[0], y // per_cell[1], x // per_cell[2]
