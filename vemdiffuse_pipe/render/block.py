"""One block, a pure function: sections in, planes and their uncertainty out.

    sections of the block (uint8) -> for each gap: for each sample, for each tile: noise -> model
    (or each section)
                                                  ramps blend the tiles of one sample
                                     mean and spread over the samples -> planes (uint8)

It streams along z: floats exist for one gap at a time, however deep the block is.
Arithmetic runs one thread a tile, tiles in parallel, so the number of threads changes no voxel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, product
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.grey import to_grey, uncertainty_to_grey
from vemdiffuse_pipe.geometry.lattice import Tile
from vemdiffuse_pipe.geometry.plane_groups import PlaneGroup
from vemdiffuse_pipe.models.device import device_here
from vemdiffuse_pipe.models.noise import degrees_of_freedom, voxel_noise
from vemdiffuse_pipe.models.protocol import GapView, Model
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.volume import Voxels

Floats = NDArray[np.float32]
A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Hardware:
    """Where and how wide to compute; nothing here changes a voxel on a CPU.

    `n_threads`: tiles rendered at once on a CPU. `tile_batch`: tiles in one call of the model.
    """

    device: str = "cpu"
    n_threads: int = 1
    tile_batch: int = 1


def render_block(
    plan: Plan,
    model: Model,
    sections: Voxels,
    output_box: Box,
    hardware: Hardware = Hardware(),
    on_planes: Callable[[int], None] = lambda n_planes: None,
) -> dict[str, Voxels]:
    """The arrays of one block, by name: uint8, each of the shape of `output_box`.

    `sections`: uint8, the voxels of `plan.source_box(output_box)`. `on_planes` hears of each gap's
    planes as they are done. Measured sections pass through bit for bit, with uncertainty 0; where sections
    are restored none does, and planes of rejected ones stay 0.
    """
    out = {name: np.zeros(output_box.shape, np.uint8) for name in plan.arrays}
    source_box = plan.source_box(output_box)
    output_box = output_box.shift(plan.origin)  # from here on voxels are numbered as in the whole volume
    first, stop = output_box.start[0], output_box.stop[0]
    inside = output_box.relative_to(source_box.start).slices[1:]
    for section, plane in plan.gaps.measured(first, stop):
        out["em"][plane - first] = sections[section - source_box.start[0]][inside]
    with ThreadPoolExecutor(hardware.n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for gap in plan.gaps.touching(first, stop):
            painter = _GapRenderer(plan, model, sections, source_box, output_box, gap, hardware, pool)
            painter.render_gap(out)
            on_planes(len(painter.planes))
    return out


@dataclass(frozen=True, slots=True)
class _GapRenderer:
    """Paints the planes of one gap, or of one restored section, that lie in the block."""

    plan: Plan
    model: Model
    sections: Voxels
    source_box: Box
    output_box: Box
    gap: PlaneGroup
    hardware: Hardware
    pool: ThreadPoolExecutor

    @property
    def planes(self) -> range:
        """Planes of the gap inside the block."""
        first = max(self.gap.first_plane, self.output_box.start[0])
        return range(first, min(self.gap.first_plane + self.gap.n_planes, self.output_box.stop[0]))

    def render_gap(self, out: dict[str, Voxels]) -> None:
        """Fill the gap's planes of every array."""
        rows = slice(
            self.planes.start - self.output_box.start[0], self.planes.stop - self.output_box.start[0]
        )
        if self.plan.sampling.samples == 1 and self.plan.lattice.overlap_px == 0:
            self._render_tile_by_tile(out["em"][rows])
            return
        mean, spread = self._mean_and_spread()
        out["em"][rows] = to_grey(mean)
        if "uncertainty" in out:
            out["uncertainty"][rows] = uncertainty_to_grey(spread)

    def _render_tile_by_tile(self, em: Voxels) -> None:
        """One sample, no overlap: nothing to blend, each tile goes straight to its place."""

        def render_gap(tile: Tile) -> None:
            (planes,) = self._generate([(0, tile)])
            here, there = self._overlap(tile)
            to_grey(planes[(slice(None), *here)], out=em[(slice(None), *there)])

        _exhaust(
            _in_order(
                self.pool, render_gap, self.plan.lattice.touching(self.output_box), self.hardware.n_threads
            )
        )

    def _mean_and_spread(self) -> tuple[Floats, Floats]:
        """Mean and deviation of the samples, each (planes, y, x) float32. Welford 1962."""
        shape = (len(self.planes), *self.output_box.shape[1:])
        mean, squares = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused as a grey level
            for k, sample in enumerate(self._samples(shape)):
                difference = sample - mean
                mean += difference / np.float32(k + 1)
                squares += difference * (sample - mean)
        return mean, np.sqrt(squares / np.float32(degrees_of_freedom(self.plan.sampling.samples) or 1))

    def _samples(self, shape: tuple[int, ...]) -> Iterator[Floats]:
        """Each sample, its own tiles blended with their ramps: sample k with sample k."""
        lattice = self.plan.lattice
        tiles = list(lattice.touching(self.output_box))
        items = list(product(range(self.plan.sampling.samples), tiles))
        batches = _batched(items, self.hardware.tile_batch)
        rendered = _in_order(self.pool, self._generate, batches, self.hardware.n_threads)
        blended = np.zeros(shape, np.float32)
        for n_done, ((_, tile), planes) in enumerate(
            zip(items, (p for batch in rendered for p in batch), strict=True), 1
        ):
            here, there = self._overlap(tile)
            blended[(slice(None), *there)] += (planes * lattice.weights(tile))[(slice(None), *here)]
            if n_done % len(tiles) == 0:
                yield blended
                blended = np.zeros(shape, np.float32)

    def _generate(self, items: list[tuple[int, Tile]]) -> list[Floats]:
        """The wanted planes of each (sample, tile): (planes, tile y, tile x) float32, in grey levels."""
        device = torch.device(device_here(self.hardware.device))
        all_planes = range(self.gap.first_plane, self.gap.first_plane + self.gap.n_planes)
        wanted = self.planes if self.model.card.is_local else all_planes
        positions = [self.gap.position(p) for p in wanted]
        sections = np.stack([self._sections(tile) for _, tile in items])
        view = GapView(
            torch.from_numpy(sections).to(device).float(),
            torch.tensor(positions, dtype=torch.float64, device=device),
            float(self.gap.ratio),
        )
        numbers = torch.tensor(wanted, device=device)

        def noise(step: int) -> torch.Tensor:
            return torch.stack([self._noise(k, numbers, tile, step) for k, tile in items])

        planes = self.model.generate(view, noise).cpu().numpy()
        return list(planes[:, self.planes.start - wanted.start : self.planes.stop - wanted.start])

    def _noise(self, sample: int, planes: torch.Tensor, tile: Tile, step: int) -> torch.Tensor:
        seed, shape = self.plan.sampling.seed, self.plan.lattice.tile_px
        return voxel_noise(seed, sample, planes, tile.start, shape, step=step)

    def _sections(self, tile: Tile) -> Voxels:
        """What the model looks at: (2 + 2 * reach, tile y, tile x) uint8, mirrored at the edges.

        Of a restored section: (1 + 2 * reach, y, x), the source's pixels of the tile and of its halo.
        """
        reach, n = self.plan.card.reach_sections, self.plan.gaps.n_sections
        own = self.gap.sections
        below = [_mirrored(own[0] - i, n) for i in range(reach, 0, -1)]
        above = [_mirrored(own[-1] + i, n) for i in range(1, reach + 1)]
        indices = [u - self.source_box.start[0] for u in (*below, *own, *above)]
        given = self.plan.model_input_box(self._window(tile))
        inside = given.intersect(_flat(self.plan.source.frame.box))
        _, rows, columns = inside.relative_to(self.source_box.start).slices
        sections = self.sections[indices, rows, columns]
        if inside == given:
            return sections
        missing = [
            (a - b, c - d)
            for a, b, c, d in zip(inside.start, given.start, given.stop, inside.stop, strict=True)
        ]
        return np.pad(sections, missing, mode="reflect")

    def _overlap(self, tile: Tile) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """What tile and block share: where it lies in the tile, and where in the block (y, x)."""
        block, scale = _flat(self.output_box), self.plan.card.scale
        window = self._window(tile)
        shared = window.intersect(block)
        _, *here = shared.relative_to(window.whole((1, scale, scale)).start).slices
        _, *there = shared.relative_to(block.start).slices
        return (here[0], here[1]), (there[0], there[1])

    def _window(self, tile: Tile) -> Box:
        """The part of a tile that is rendered: all of it, or where it may be cut what lies in the block."""
        (y, x), (ny, nx) = tile.start, self.plan.lattice.tile_px
        window = Box((0, y, x), (1, y + ny, x + nx))
        return window.intersect(_flat(self.output_box)) if self.plan.card.is_local else window


def _flat(box: Box) -> Box:
    """The y and x of a box."""
    return Box((0, *box.start[1:]), (1, *box.stop[1:]))


def _mirrored(index: int, n: int) -> int:
    """`index` reflected about the first and the last of n: -1 is 1, n is n - 2."""
    index %= max(1, 2 * (n - 1))
    return min(index, 2 * (n - 1) - index)


def _batched(items: Iterable[tuple[int, Tile]], size: int) -> Iterator[list[tuple[int, Tile]]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _in_order(pool: ThreadPoolExecutor, f: Callable[[A], B], items: Iterable[A], ahead: int) -> Iterator[B]:
    """f of each item, computed by the pool, in order, never more than 2 * ahead results waiting."""
    waiting: deque[Future[B]] = deque()
    for item in items:
        waiting.append(pool.submit(f, item))
        if len(waiting) > 2 * ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _exhaust(results: Iterator[object]) -> None:
    deque(results, maxlen=0)
