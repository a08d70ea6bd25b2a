"""Which part of which volume is in memory when: a schedule, never a matter of timing.

    sample   0 ......... n ......... 2n ........ 3n ........           (n = samples_per_slab)
    slabs    0 1 2 3     1 2 3 4     2 3 4 5     3 4 5 6               (a pool of 4)

Sample i comes from one of the slabs i // n ... i // n + pool - 1, so each slab gives n samples on average,
mixed with those of its neighbours, and one slab is read for every n samples. Which slab that is, is a
function of (seed, number): training resumes anywhere.

A slab belongs to a cell of first voxels, cut along the chunks of the volume, and holds all crops that begin
in it. The cell is found by drawing a first voxel evenly from all: each is as likely as any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil, prod
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.training.region import first_voxels
from vemdiffuse_pipe.volume import Source, Voxels

MAX_CHUNK = 1024  # voxels a side: of larger chunks a part is kept, though all of it is decoded
READ_PER_SAMPLE = 2.0  # bytes decoded over bytes used, at which samples_per_slab aims
SLABS, SAMPLES, RATIOS = 1, 2, 3  # streams of random numbers

Number = TypeVar("Number", bound=np.generic)


def generator(seed: int, cut: int, stream: int, number: int) -> np.random.Generator:
    """Random numbers that belong to `number`, of a stream, of a cut (`CropSpec.number`), of a seed."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, cut, stream, number]))


@dataclass(frozen=True, slots=True)
class CropSpec:
    """How crops lie in a volume. `axis`: of the gap, 0 for z; `depth`: planes along it, with both sections.

        axis    rows   columns    as the network sees it, and what it will see
        z       y      x          (y, x)                  (y, x)
        y       z      x          (z, x)                  (y, x)     z takes the place of y
        x       z      y          (y, z)                  (y, x)     z takes the place of x

    `rows`, `columns`: px of a crop. `upsampling`: how many rows are made of one section; 1 where they are
    left as they are. `is_axial`: crops are rows of axial planes, which z does not lie in; it stays the rows.
    `align`: y and x at which slabs begin and end are multiples of it.
    """

    axis: int
    depth: int
    rows: int
    columns: int
    upsampling: int = 1
    is_axial: bool = False
    align: int = 1

    @property
    def number(self) -> int:
        """Its own among the cuts of a volume: random numbers belong to it."""
        return self.axis + 3 * (self.upsampling - 1)

    @property
    def source_rows(self) -> int:
        """Rows of the source that a crop needs: with upsampling it begins anywhere between two."""
        if self.upsampling == 1:
            return self.rows
        return (self.upsampling + self.rows - 2) // self.upsampling + 2

    @property
    def extent(self) -> Zyx:
        """Voxels of the source that a crop needs, zyx."""
        plane = [self.source_rows, self.columns]
        plane.insert(self.axis, self.depth)
        z, y, x = plane
        return z, y, x

    def oriented(self, voxels: Voxels) -> Voxels:
        """A view of zyx voxels as (plane along the gap, row, column)."""
        return np.moveaxis(voxels, self.axis, 0)

    def as_seen(self, planes: NDArray[Number]) -> NDArray[Number]:
        """A view of (plane, row, column) as the network sees it."""
        return planes.swapaxes(1, 2) if self.axis == 2 and not self.is_axial else planes


@dataclass(frozen=True, slots=True)
class TrainingVolume:
    """What is learnt from: `region` of a source, less `holes`. `contrast`: mean and deviation of its grey.

    `raw`: where sections are restored, what is given in the place of `source`, whose contrast counts then;
    its pixels are `CropSpec.align` times as large.
    """

    source: Source
    contrast: tuple[float, float]
    region: Box
    holes: tuple[Box, ...] = ()
    raw: Source | None = None

    @property
    def given(self) -> Source:
        """What a network will be given."""
        return self.raw or self.source


@dataclass(frozen=True, slots=True)
class Slab:
    """`box`, to be read, of volume number `volume`; crops begin in `first`."""

    volume: int
    first: Box
    box: Box


@dataclass(frozen=True, slots=True)
class _Part:
    """A box of first voxels, and the grid of cells that it is cut along."""

    volume: int
    first: Box
    cell: Zyx


@dataclass(frozen=True)
class SlabSchedule:
    """Slabs of volumes by number. Raises PlanError where a volume has no room for a crop."""

    volumes: Sequence[TrainingVolume]
    cut: CropSpec
    seed: int = 0
    pool: int = 8
    slab_bytes: int = 8 << 20
    wanted_samples_per_slab: int | None = None
    parts: Sequence[_Part] = field(init=False)
    samples_per_slab: int = field(init=False)

    def __post_init__(self) -> None:
        parts = [part for v in range(len(self.volumes)) for part in self._parts(v)]
        object.__setattr__(self, "parts", parts)
        n_samples = self.wanted_samples_per_slab or max(map(self._samples_to_be_worth_reading, parts))
        object.__setattr__(self, "samples_per_slab", n_samples)

    def window(self, sample: int) -> range:
        """Numbers of the slabs that sample number `sample` may come from."""
        first = sample // self.samples_per_slab
        return range(first, first + self.pool)

    def slab(self, number: int, attempt: int = 0) -> Slab:
        """Slab `number`; the one in its place where `attempt` others could not be read."""
        rng = generator(self.seed, self.cut.number, SLABS, number)
        for _ in range(attempt + 1):
            part, first = self._draw(rng)
        z, y, x = (a // n * n for a, n in zip(first, part.cell, strict=True))
        cell = Box.of_shape(part.cell, (z, y, x)).intersect(part.first)
        box = _around(cell, self.cut.extent).whole((1, self.cut.align, self.cut.align))
        return Slab(part.volume, cell, box)

    def _draw(self, rng: np.random.Generator) -> tuple[_Part, Zyx]:
        sizes = np.array([part.first.n_voxels for part in self.parts], dtype=float)
        part = self.parts[int(rng.choice(len(sizes), p=sizes / sizes.sum()))]
        z, y, x = (int(rng.integers(a, b)) for a, b in zip(part.first.start, part.first.stop, strict=True))
        return part, (z, y, x)

    def _parts(self, number: int) -> Iterator[_Part]:
        volume, extent = self.volumes[number], self.cut.extent
        boxes = first_voxels(volume.region, extent, volume.holes)
        if not boxes:
            raise PlanError(_too_small(volume, self.cut))
        cell = _cell(volume.region.shape, volume.source.spec.chunk_shape, extent, self.slab_bytes)
        yield from (_Part(number, box, cell) for box in boxes)

    def _samples_to_be_worth_reading(self, part: _Part) -> int:
        """Samples that a whole slab must give for `READ_PER_SAMPLE`, whole chunks counted."""
        volume, align = self.volumes[part.volume], self.cut.align
        cell = Box.of_shape(part.cell, part.first.start).intersect(part.first)
        box = _around(cell, self.cut.extent).whole((1, align, align))
        decoded, used = decoded_bytes(volume.source, box), float(prod(self.cut.extent))
        if volume.raw is not None:
            decoded += decoded_bytes(volume.raw, coarser(box, align))
            used *= 1 + 1 / align**2
        return max(1, ceil(decoded / (READ_PER_SAMPLE * used)))


def decoded_bytes(source: Source, box: Box) -> int:
    """Grey levels that must be decoded to read `box`: those of all chunks that it touches."""
    return box.whole(source.spec.chunk_shape).intersect(source.spec.frame.box).n_voxels


def coarser(box: Box, scale: int) -> Box:
    """The same part of a volume whose pixels are `scale` times as large; its ends are multiples of that."""
    (z, y, x), (z_stop, y_stop, x_stop) = box.start, box.stop
    return Box((z, y // scale, x // scale), (z_stop, y_stop // scale, x_stop // scale))


def evenly(rng: np.random.Generator, first: Box) -> NDArray[np.int64]:
    """One voxel of a box, each as likely as any other: (3,)."""
    return rng.integers(first.start, first.stop)


def _cell(region: Zyx, chunk: Zyx, extent: Zyx, slab_bytes: int) -> Zyx:
    """The shape of a cell: whole chunks where they are not huge, as many as `slab_bytes` allow."""
    room = [n - m + 1 for n, m in zip(region, extent, strict=True)]
    step = [min(n, MAX_CHUNK) for n in chunk]
    cell = list(step)
    while growing := [i for i in range(3) if cell[i] < room[i]]:
        axis = max(growing, key=lambda i: extent[i] / cell[i])  # where the halo costs most
        larger = [n + step[i] * (i == axis) for i, n in enumerate(cell)]
        if prod(min(n, r) + m - 1 for n, r, m in zip(larger, room, extent, strict=True)) > slab_bytes:
            break
        cell = larger
    z, y, x = cell
    return z, y, x


def _around(cell: Box, extent: Zyx) -> Box:
    """What all crops of `extent` that begin in `cell` hold."""
    z, y, x = (b + n - 1 for b, n in zip(cell.stop, extent, strict=True))
    return Box(cell.start, (z, y, x))


def _too_small(volume: TrainingVolume, cut: CropSpec) -> str:
    room, needed = (" x ".join(map(str, shape)) for shape in (volume.region.shape, cut.extent))
    left = ", less what is held back or rejected," if volume.holes else ""
    return (
        f"the region of {volume.source.spec.url},{left} {room} voxels, has no room for a slab of "
        f"{needed} along {'zyx'[cut.axis]}; {needed} is the smallest that would do: take a larger region, "
        "or a smaller crop_px or ratio"
    )
