"""The plan is data: everything that a run will do, from integers and metadata alone.

VolumeSpec + RunFile + ModelCard  ->  Plan  ->  block index -> output box -> source box
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import prod
from typing import cast

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.config import Json, ModelTable, OutputTable, RunFile, SourceTable
from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.geometry import morton
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Frame, exact_nm
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.geometry.lattice import CoreLattice, Lattice, TileLattice, Yx
from vemdiffuse_pipe.geometry.plane_groups import PlaneGroups
from vemdiffuse_pipe.geometry.region import planes_of
from vemdiffuse_pipe.models.card import ModelCard
from vemdiffuse_pipe.plan.answers import (
    Sampling,
    check_answers,
    choose_arrays,
    choose_sampling,
    is_on_gpu,
)
from vemdiffuse_pipe.plan.measured import Contrast, Measured
from vemdiffuse_pipe.plan.planes import choose_planes, exact_ratio
from vemdiffuse_pipe.volume import VolumeSpec

PRECOMPUTED_BITS = 6  # a shard holds 64 chunks

USUAL_CORE_PX = 1024  # that of a block


@dataclass(frozen=True, slots=True)
class Plan:
    """A run, before anything is computed.

    `gaps` and `lattice` are those of the whole volume, whatever part of it is made.
    """

    source: VolumeSpec
    """The source, as its metadata state it."""
    card: ModelCard
    """The model."""
    gaps: PlaneGroups
    """Which planes are made from which sections."""
    output: Frame
    """Shape, voxel size and place of the output."""
    lattice: Lattice
    """How the (y, x) plane is cut into what a model sees at once."""
    blocks: BlockGrid
    """The output cut into blocks, units of work."""
    chunk_shape: Zyx
    """Chunks of the output, voxels."""
    shard_shape: Zyx
    """Shards of the output, voxels: whole chunks."""
    sampling: Sampling
    """How samples are drawn."""
    run_file: RunFile
    """What the user stated."""
    measured: Measured = Measured()  # noqa: RUF009 (frozen)
    """What the voxels of the source say."""
    origin: Zyx = (0, 0, 0)
    """First voxel of the output in the output of the whole volume; output boxes count from it."""

    @property
    def contrast(self) -> Contrast | None:
        """Mean and deviation of the grey levels, stated or measured; None where no model asks, or not yet."""
        stated = self.run_file.source.contrast
        return (stated or self.measured.contrast) if self.card.needs_contrast else None

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that stand for the identity."""
        return digest(self.identity())

    @property
    def arrays(self) -> tuple[str, ...]:
        """What is written, by name."""
        return choose_arrays(self.run_file, self.card)

    @property
    def shards(self) -> BlockGrid:
        """The output cut into shards."""
        return BlockGrid(self.output.shape, self.shard_shape)

    @property
    def part(self) -> Box:
        """What is made, in voxels of the output of the whole volume."""
        return Box.of_shape(self.output.shape, self.origin)

    @property
    def whole_shape(self) -> Zyx:
        """Shape of the output of the whole volume."""
        _, y, x = self.source.shape
        return self.gaps.n_planes, self.card.scale * y, self.card.scale * x

    @property
    def is_part(self) -> bool:
        """True where a region of the volume is made, and not all of it."""
        return self.output.shape != self.whole_shape

    @property
    def anisotropy(self) -> float:
        """What anisotropy remains: plane distance over pixel size."""
        return float(exact_ratio(self.output.voxel_size_nm))

    @property
    def ratio_in_json(self) -> int | str:
        """r, as it is kept with the output: 5, and 450/43 where it is not whole."""
        return self.gaps.r if isinstance(self.gaps.r, int) else str(self.gaps.r)

    @property
    def by_columns(self) -> bool:
        """True where blocks are best taken along z first: a chunk of the source serves several of them."""
        return self.source.chunk_shape[0] * self.gaps.r > self.blocks.block_shape[0]

    @property
    def n_passes(self) -> int:
        """How often each tile is rendered: once for every sample, and once for an estimate beside them."""
        return self.sampling.samples + self.card.has_estimate

    def flop_per_pixel(self, n_planes: int) -> float:
        """Operations for a gap, all samples and evaluations and the estimate, per (y, x) pixel of a tile."""
        n_evaluations = self.sampling.samples * self.sampling.steps
        return n_evaluations * self.card.flop_per_pixel(n_planes) + self.card.estimate_flop_per_pixel(
            n_planes
        )

    @property
    def sectioning_nm(self) -> tuple[float, float, float, float]:
        """(side of a pixel, distance of planes, thickness of sections, thickness of planes), nm."""
        dz, dy, dx = map(float, self.source.frame.voxel_size_nm)
        pixel, section = (dy + dx) / 2, self.run_file.source.section_thickness_nm or dz
        return pixel, dz / float(self.gaps.r), section, self._plane_nm(pixel, section)

    def _plane_nm(self, pixel: float, section: float) -> float:
        return section if self.run_file.model.plane_thickness == "section" else min(pixel, section)

    def source_box(self, output_box: Box) -> Box:
        """What must be read to render `output_box`: whole gaps, whole tiles, cut at the volume.

        A model that looks at no neighbours is handed no more of a tile than lies in the box.
        """
        whole_box = output_box.shift(self.origin)
        first, stop = self.gaps.sections_for(whole_box.start[0], whole_box.stop[0], self.card.reach_sections)
        wide = whole_box if self.card.is_local else self.lattice.reach(whole_box)
        input_box = self.model_input_box(wide).intersect(self.source.frame.box)
        return Box((first, *input_box.start[1:]), (stop, *input_box.stop[1:]))

    def model_input_box(self, output_box: Box) -> Box:
        """What a model is given for a box of the output of the whole volume: in the plane, source pixels with
        its halo, not cut; z as is.

        output   |  |  |##|##|##|  |          whole pixels of the source, scale 2
        source   |  h  |#####|#####|  h  |    h halo
        """
        scale, halo = self.card.scale, self.card.halo_px
        (z, *start), (z_stop, *stop) = output_box.start, output_box.stop
        y, x = (a // scale - halo for a in start)
        y_stop, x_stop = (-(-b // scale) + halo for b in stop)
        return Box((z, y, x), (z_stop, y_stop, x_stop))

    def provenance(self, filled: Collection[int] = ()) -> NDArray[np.uint8]:
        """One code a plane of the output, (planes,) uint8. `filled`: sections that were partly filled."""
        first = self.origin[0]
        return self.gaps.provenance(filled, self.card.reach_sections)[first : first + self.output.shape[0]]

    def identity(self) -> dict[str, Json]:
        """Everything that changes a voxel, by name. Block shape, workers and batches are not in it."""
        source = self.run_file.source
        return {
            "source": self.source.url,
            "level": self.source.level,
            "shape": list(self.source.shape),
            "dtype": self.source.dtype,
            "voxel_size_nm": [str(v) for v in self.source.frame.voxel_size_nm],
            "channel": source.channel,
            **{key: value for key in ("series", "pattern") if (value := getattr(source, key)) is not None},
            "window": list(source.window) if source.window else None,
            "missing": source.missing,
            "corrupt": source.corrupt,
            **({} if source.nan == "fail" else {"nan": source.nan}),
            "rejected_sections": list(self.gaps.rejected),
            "contrast": list(self.contrast) if self.contrast else None,
            "ratio": self.ratio_in_json,
            **({} if self.card.fills_gaps else {"task": self.card.task}),
            **self._identity_of_answers(),
            "model": self.card.name,
            "model_sha256": self.card.sha256,
            "samples": self.sampling.samples,
            "sampler": self.sampling.sampler,
            "steps": self.sampling.steps,
            "seed": self.sampling.seed,
            "precision": self.sampling.precision,
            **cast(dict[str, Json], self.lattice.identity),
        }

    def _identity_of_answers(self) -> dict[str, Json]:
        """What models are told that know of thickness, and what is written where that was chosen."""
        chosen: dict[str, Json] = {}
        if self.card.needs_sectioning:
            _, _, section_nm, plane_nm = self.sectioning_nm
            chosen |= {"section_thickness_nm": section_nm, "plane_thickness_nm": plane_nm}
        if not self.keeps_sections:
            chosen["sections"] = "estimate"
        if self.card.has_estimate or self.run_file.output.arrays is not None:
            chosen["arrays"] = list(self.arrays)
        return chosen

    @property
    def keeps_sections(self) -> bool:
        """False where planes at sections are estimated as all others are."""
        return self.run_file.model.sections == "keep"


def digest(identity: dict[str, Json]) -> str:
    """Sixteen hexadecimal digits that stand for an identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def make_plan(
    run_file: RunFile,
    source: VolumeSpec,
    card: ModelCard,
    measured: Measured = Measured(),  # noqa: B008
) -> Plan:
    """The plan of a run. Pure: integers and metadata, no voxel is read.

    Raises PlanError where the run file, the volume and the model do not fit together.
    """
    check_answers(run_file, source, card)
    gaps, whole = choose_planes(run_file, source, card, measured)
    region = planes_of(choose_region(run_file.source, source, gaps), gaps.r, card.scale)
    region = region.intersect(whole.box)
    output = whole.cropped(region)
    chunk, shard = choose_shards(run_file, output.shape)
    block = choose_block(run_file, output.shape, shard)
    return Plan(
        source=source,
        card=card,
        gaps=gaps,
        output=output,
        lattice=choose_lattice(run_file, whole.shape, card),
        blocks=BlockGrid(output.shape, block),
        chunk_shape=chunk,
        shard_shape=shard,
        sampling=choose_sampling(run_file, card),
        run_file=run_file,
        measured=measured,
        origin=region.start,
    )


def choose_region(table: SourceTable, source: VolumeSpec, gaps: PlaneGroups) -> Box:
    """The voxels of the source that are wanted: as asked for, else all. Raises PlanError."""
    if table.region is not None and table.region_nm is not None:
        raise PlanError("region and region_nm are both given; one of them says which part is wanted")
    if table.region_nm is not None:
        first, stop = table.region_nm
        return gaps.region(source.frame, exact_nm(first), exact_nm(stop))
    if table.region is None:
        return source.frame.box
    box = Box(*table.region)
    if box.is_empty or not source.frame.box.contains(box):
        raise PlanError(f"region {box} is not inside {source.url}, which has {source.frame.box}, z y x")
    if box.shape[0] < gaps.min_sections:
        raise PlanError(f"region {box} has {box.shape[0]} section; at least {gaps.min_sections} are needed")
    return box


def choose_lattice(run_file: RunFile, shape: Zyx, card: ModelCard) -> Lattice:
    """Cores with a halo where that pays off for a network that is exact, else tiles that are blended.

    What looks no further than its halo needs neither: such tiles fit a cache and are cut at the block.
    """
    plane = (shape[1], shape[2])
    if card.is_local:
        return TileLattice(plane, (min(128, plane[0]), min(1024, plane[1])), 0)
    if core := choose_core(run_file, card):
        return CoreLattice(plane, core, card.tile_halo_px, card.multiple_px)
    return _blended_lattice(run_file.model, plane, card)


def choose_core(run_file: RunFile, card: ModelCard) -> int:
    """Pixels of a core as asked for, else 1024 on a GPU; 0 where tiles are blended.

    They are blended where a network is not exact, where `tile_px` or `overlap_px` is given, and where the
    halo is more than a quarter of the core, so that cores would cost more. On a CPU they are, unless cores
    are asked for: a pixel takes 1.4 times as long in a window of 1024 px as in one of 384 px (lean network,
    float32, one thread, 2 shared CPU cores, 2026-11-28), and each thread holds a window. Raises PlanError.
    """
    table = run_file.model
    is_blended = table.tile_px is not None or table.overlap_px is not None
    can_be_cut = card.is_tile_exact and not card.tile_px
    if table.core_px and (is_blended or not can_be_cut):
        why = "tile_px or overlap_px is given too" if can_be_cut else f"model {card.name} has tiles to blend"
        raise PlanError(f"core_px {table.core_px}: {why}; leave core_px out")
    if table.core_px:
        return table.core_px
    pays_off = is_on_gpu(run_file) and 4 * card.tile_halo_px <= USUAL_CORE_PX
    return USUAL_CORE_PX if can_be_cut and pays_off and not is_blended else 0


def _blended_lattice(table: ModelTable, plane: Yx, card: ModelCard) -> TileLattice:
    """Tiles as asked for, else of at most 384 px, sharing 32, sized so that the last reaches little beyond.

    A model that takes tiles of one size gets that; one that is not exact under tiling shares 64 px.
    """
    multiple = card.multiple_px
    usual = 32 if card.is_tile_exact else min(64, card.tile_px // 4 // multiple * multiple)
    tile = table.tile_px or card.tile_px or 384
    overlap = usual if table.overlap_px is None else table.overlap_px
    if card.tile_px and tile != card.tile_px:
        raise PlanError(
            f"tile_px {tile}; model {card.name} takes tiles of {card.tile_px} px; leave tile_px out"
        )
    if tile % multiple or overlap % multiple or 2 * overlap > tile:
        raise PlanError(
            f"tile_px {tile}, overlap_px {overlap}; model {card.name} needs multiples of {multiple}, "
            "and an overlap of at most half a tile"
        )
    if table.tile_px or card.tile_px:
        return TileLattice(plane, (tile, tile), overlap)
    y, x = (_fitting_tile(n, tile, overlap, multiple) for n in plane)
    return TileLattice(plane, (y, x), overlap)


def _fitting_tile(n: int, largest: int, overlap: int, multiple: int) -> int:
    """The smallest tile that covers `n` pixels with as few tiles as the `largest` one does."""
    n_tiles = max(1, -(-(n - overlap) // (largest - overlap)))
    stride = -(-max(1, n - overlap) // n_tiles)
    return max(2 * overlap, -(-(stride + overlap) // multiple) * multiple)


def choose_shards(run_file: RunFile, shape: Zyx) -> tuple[Zyx, Zyx]:
    """Chunk and shard: as asked for, else chunks of 64 voxels in shards of 64 x 512 x 512."""
    table = run_file.output
    if table.format == "precomputed":
        return _precomputed_shards(table, shape)
    chunk = table.chunk_shape or _each(min, (64, 64, 64), shape)
    if table.format in ("ome-zarr-0.4", "n5"):
        if table.shard_shape not in (None, chunk):
            raise PlanError(f"{table.format} has no shards; leave shard_shape out, or write ome-zarr-0.5")
        return chunk, chunk
    shard = table.shard_shape or _each(
        lambda c, n: c * max(1, min(-(-n // c), 512 // c)), chunk, (chunk[0], *shape[1:])
    )
    if any(s % c for s, c in zip(shard, chunk, strict=True)):
        raise PlanError(f"shard_shape {shard} is not a multiple of chunk_shape {chunk}")
    return chunk, shard


def _precomputed_shards(table: OutputTable, shape: Zyx) -> tuple[Zyx, Zyx]:
    """Shards hold 2^n chunks, those that differ in n bits of their Morton codes; no shards where n is 0."""
    chunk = table.chunk_shape or _each(min, (16, 128, 128), shape)
    counts = _each(lambda n, c: -(-n // c), shape, chunk)
    possible = [
        _each(lambda c, k: c * k, chunk, morton.covered(counts, n)) for n in range(morton.n_bits(counts) + 1)
    ]
    if table.shard_shape in (None, *possible):
        return chunk, table.shard_shape or possible[min(PRECOMPUTED_BITS, len(possible) - 1)]
    wanted = prod(table.shard_shape or chunk)
    nearest = min(possible, key=lambda shard: abs(prod(shard) - wanted))
    raise PlanError(
        f"shard_shape {table.shard_shape} is no shard of precomputed chunks of {chunk}; nearest: {nearest}"
    )


def choose_block(run_file: RunFile, shape: Zyx, shard: Zyx) -> Zyx:
    """Block: as asked for (whole shards), else about 64 x 1024 x 1024 voxels of whole shards."""
    asked = run_file.run.block_shape
    if asked is None:
        return _each(lambda s, n: s * max(1, min(-(-n // s), 1024 // s)), shard, (1, *shape[1:]))
    if any(a % s and a < n for a, s, n in zip(asked, shard, shape, strict=True)):
        nearest = _each(lambda s, a: s * max(1, round(a / s)), shard, asked)
        raise PlanError(f"block_shape {asked} is not made of whole shards of {shard}; nearest: {nearest}")
    return asked


def _each(f: Callable[[int, int], int], a: Zyx, b: Zyx) -> Zyx:
    z, y, x = (f(i, j) for i, j in zip(a, b, strict=True))
    return z, y, x
