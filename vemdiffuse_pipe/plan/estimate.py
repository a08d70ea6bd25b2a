"""What a plan will cost, before anything is computed: bytes, operations, and upper bounds of memory.

Blocks are a product of three axes and so is everything that is counted here: sums run along each axis
once, never over the blocks, so a petavoxel is estimated in a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import prod

import numpy as np

from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.plan.answers import is_on_gpu
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.volume import CACHE_BYTES

# Interpreter, torch, dask and tensorstore: measured 315 to 440 MB (Linux, torch 2.13 for CPU).
PROCESS_BYTES = 480 * 10**6
FRAGMENTATION = 1.4  # memory that is free but cannot be given back; measured 1.05 to 1.3 (Linux, glibc)
GIVEN_BACK_BYTES = (
    32 * 2**20
)  # what is as large is mapped by itself, and given back whole (glibc, mallopt(3))
GPU_BYTES = 10**9  # libraries, kernels, weights
USEFUL_PIXELS = 2**22  # of one call of a network: it keeps a GPU busy for milliseconds
BLOCKS_IN_FLIGHT = 3  # of one worker: one is read, one rendered, one written


@dataclass(frozen=True, slots=True)
class Estimate:
    """Costs of a plan. `ram_bytes`: upper bound for one worker process; `gpu_bytes`: for one GPU.

    `renders_per_voxel`: how often a generated voxel is rendered for one sample, by halos and the overlap of
    tiles and by tiles and gaps that straddle blocks. `n_chunk_reads`, `chunk_read_bytes`: chunks of the
    source that are fetched for the `read_bytes` that are needed, and what they decode to; a chunk that
    serves a whole column of blocks counts once. `flop_per_voxel`: of the output, all included.
    """

    source_bytes: int
    output_bytes: int
    output_voxels: int
    n_blocks: int
    n_shards: int
    n_tiles_rendered: int
    renders_per_voxel: float
    read_bytes: int
    n_chunk_reads: int
    chunk_read_bytes: int
    flop: float
    flop_per_voxel: float
    ram_bytes: int
    gpu_bytes: int

    def as_dict(self) -> dict[str, int | float]:
        """The figures by name."""
        return asdict(self)


def estimate(plan: Plan, *, n_threads: int = 1) -> Estimate:
    """The costs of `plan`, with `n_threads` tiles rendered at once in a worker process. Pure arithmetic.

    Example:

        >>> from pathlib import Path
        >>> from vemdiffuse_pipe import estimate, load_run_file, plan_run
        >>> estimate(plan_run(load_run_file(Path("linear.toml")))).n_blocks
        1
    """
    n_gaps, planes_rendered, gap_flop = _gaps(plan)
    n_tiles = _along(plan, 1, _n_tiles(plan, 1)) * _along(plan, 2, _n_tiles(plan, 2))
    pixels = _along(plan, 1, _rendered(plan, 1)) * _along(plan, 2, _rendered(plan, 2))
    generated = int(np.count_nonzero(plan.provenance() > 1)) * prod(plan.output.shape[1:])
    n_voxels = prod(plan.output.shape)
    itemsize = np.dtype(plan.source.dtype).itemsize
    read_voxels = prod(_along(plan, axis, _source_extent(plan, axis)) for axis in range(3))
    flop = gap_flop * pixels
    return Estimate(
        source_bytes=prod(plan.source.shape) * itemsize,
        output_bytes=n_voxels * len(plan.arrays),
        output_voxels=n_voxels,
        n_blocks=plan.blocks.n_blocks,
        n_shards=plan.shards.n_blocks,
        n_tiles_rendered=n_tiles * n_gaps * plan.n_passes,
        renders_per_voxel=planes_rendered * pixels / generated,
        read_bytes=read_voxels * itemsize,
        n_chunk_reads=prod(_over_chunks(plan, axis, _n_chunks(plan, axis)) for axis in range(3)),
        chunk_read_bytes=prod(_over_chunks(plan, axis, _in_chunks(plan, axis)) for axis in range(3))
        * itemsize,
        flop=flop,
        flop_per_voxel=flop / n_voxels,
        ram_bytes=_ram_bytes(plan, n_threads),
        gpu_bytes=_gpu_bytes(plan, tiles_at_once(plan)),
    )


def check_size(plan: Plan, figures: Estimate, available_bytes: int, n_workers: int = 1) -> None:
    """Raises PlanError when the workers together may need more memory than there is."""
    needed = figures.ram_bytes * n_workers
    if needed > available_bytes:
        raise PlanError(
            f"{n_workers} worker(s) with blocks of {plan.blocks.block_shape} may need {needed / 1e9:.2f} GB "
            f"of memory; {available_bytes / 1e9:.2f} GB are available; choose a smaller --block-shape "
            f"(whole shards of {plan.shard_shape}), smaller shards, or fewer --workers"
        )


def _along(plan: Plan, axis: int, measure: Callable[[int, int], int]) -> int:
    """Sum of `measure(start, stop)` over the blocks along one axis."""
    n, step = plan.output.shape[axis], plan.blocks.block_shape[axis]
    return sum(measure(start, min(n, start + step)) for start in range(0, n, step))


def _n_tiles(plan: Plan, axis: int) -> Callable[[int, int], int]:
    first = plan.origin[axis]
    return lambda start, stop: len(plan.lattice.span(axis - 1, first + start, first + stop))


def _rendered(plan: Plan, axis: int) -> Callable[[int, int], int]:
    """Pixels along `axis` that are rendered for [start, stop): whole tiles where a network has context."""
    if plan.card.is_local:
        return lambda start, stop: stop - start
    first = plan.origin[axis]
    return lambda start, stop: plan.lattice.n_rendered(axis - 1, first + start, first + stop)


def _source_span(plan: Plan, axis: int, start: int, stop: int) -> tuple[int, int]:
    """[first, stop) of the source along `axis` for the output voxels [start, stop)."""
    first, last = [0, 0, 0], [1, 1, 1]
    first[axis], last[axis] = start, stop
    box = plan.source_box(Box((first[0], first[1], first[2]), (last[0], last[1], last[2])))
    return box.start[axis], box.stop[axis]


def _source_extent(plan: Plan, axis: int) -> Callable[[int, int], int]:
    """Voxels along `axis` that are read for the output voxels [start, stop)."""

    def extent(start: int, stop: int) -> int:
        first, last = _source_span(plan, axis, start, stop)
        return last - first

    return extent


def _over_chunks(plan: Plan, axis: int, measure: Callable[[int, int], int]) -> int:
    """Sum over the blocks along one axis; where they are taken by columns, z is read through once."""
    if axis == 0 and plan.by_columns:
        return measure(0, plan.output.shape[0])
    return _along(plan, axis, measure)


def _n_chunks(plan: Plan, axis: int) -> Callable[[int, int], int]:
    """Chunks of the source along `axis` that are touched for the output voxels [start, stop)."""
    chunk = plan.source.chunk_shape[axis]

    def n_chunks(start: int, stop: int) -> int:
        first, last = _source_span(plan, axis, start, stop)
        return -(-last // chunk) - first // chunk

    return n_chunks


def _in_chunks(plan: Plan, axis: int) -> Callable[[int, int], int]:
    """Voxels of these chunks along `axis`, cut at the volume."""
    chunk, n = plan.source.chunk_shape[axis], plan.source.shape[axis]

    def n_voxels(start: int, stop: int) -> int:
        first, last = _source_span(plan, axis, start, stop)
        return min(n, -(-last // chunk) * chunk) - first // chunk * chunk

    return n_voxels


def gap_flops(plan: Plan, output_box: Box) -> list[float]:
    """Operations of each gap that is rendered for `output_box`, ascending."""
    (z, y, x), (z_stop, y_stop, x_stop) = output_box.start, output_box.stop
    pixels = _rendered(plan, 1)(y, y_stop) * _rendered(plan, 2)(x, x_stop)
    gaps = plan.gaps.touching(plan.origin[0] + z, plan.origin[0] + z_stop)
    return [plan.flop_per_pixel(gap.n_planes) * pixels for gap in gaps]


def _gaps(plan: Plan) -> tuple[int, int, float]:
    """Gaps rendered over all blocks along z, their planes, and operations per pixel of a tile."""
    n_gaps, n_planes, flop = 0, 0, 0.0
    depth, first, last = plan.blocks.block_shape[0], plan.part.start[0], plan.part.stop[0]
    for start in range(first, last, depth):
        for n, planes in plan.gaps.counts_touching(start, min(last, start + depth)):
            n_gaps += n
            n_planes += n * planes
            flop += n * plan.flop_per_pixel(planes)
    return n_gaps, n_planes, flop


def _ram_bytes(plan: Plan, n_threads: int) -> int:
    """Upper bound of one worker's resident memory: blocks in flight, one gap's floats, the tiles at work."""
    block = _largest_block(plan)
    source = plan.source_box(block)
    itemsize = np.dtype(plan.source.dtype).itemsize
    block_bytes, source_bytes = block.n_voxels * len(plan.arrays), source.n_voxels * itemsize
    n_waiting = BLOCKS_IN_FLIGHT - 1  # read or rendered, beside the one at work, which is both
    in_flight = _with_fragments(source_bytes, source_bytes) + _with_fragments(block_bytes, block.n_voxels)
    in_flight += n_waiting * max(
        _with_fragments(source_bytes, source_bytes), _with_fragments(block_bytes, block.n_voxels)
    )
    chunk_bytes = 2 * n_threads * prod(plan.source.chunk_shape) * itemsize  # being decoded
    tiles_at_work = n_threads * prod(plan.lattice.tile_px) * _tile_pixel_bytes(plan)
    encoded_bytes = 2 * block_bytes  # a block being cut into shards, and compressed
    whole = plan.source.frame.box.whole(plan.source.chunk_shape).n_voxels * itemsize
    small = (
        min(CACHE_BYTES, whole)
        + chunk_bytes
        + _moments_bytes(plan, block)
        + tiles_at_work
        + _waiting_bytes(plan, block, n_threads)
    )
    return int(PROCESS_BYTES + encoded_bytes + in_flight + FRAGMENTATION * small)


def _with_fragments(n_bytes: int, largest: int) -> float:
    """What `n_bytes` take up, in pieces of `largest` bytes."""
    return n_bytes if largest >= GIVEN_BACK_BYTES else FRAGMENTATION * n_bytes


def _moments_bytes(plan: Plan, block: Box) -> int:
    """Mean, squared deviations, what they are made with: of a gap where tiles are blended, else of a tile."""
    if plan.card.is_local and plan.sampling.samples == 1:
        return 0
    pixels = prod(block.shape[1:]) if plan.lattice.is_blended else prod(plan.lattice.tile_px)
    return 6 * 4 * plan.gaps.most_planes * pixels


def _waiting_bytes(plan: Plan, block: Box, n_threads: int) -> int:
    """Batches of tiles that wait for those before them, and their noise: one a thread is at work already."""
    if plan.card.is_local:
        return 0
    n_items = plan.n_passes * plan.lattice.n_touching(block.shift(plan.origin))
    n_waiting = min(n_items, (2 * n_threads + 1) * tiles_at_once(plan)) - n_threads
    return max(0, n_waiting) * 2 * 4 * prod(plan.lattice.tile_px) * plan.gaps.most_planes


def tiles_at_once(plan: Plan) -> int:
    """Tiles in one call of the model: as asked for; of "auto" one on a CPU, on a GPU as many as fill it."""
    asked = plan.run_file.run.tile_batch
    if asked != "auto":
        return asked
    if not is_on_gpu(plan.run_file):
        return 1
    n_items = plan.sampling.samples * plan.lattice.n_touching(_largest_block(plan).shift(plan.origin))
    return max(1, min(n_items, USEFUL_PIXELS // prod(plan.lattice.tile_px)))


def tile_bytes(plan: Plan) -> int:
    """Upper bound of a device's memory for one tile of a call: activations, noise and planes."""
    return prod(plan.lattice.tile_px) * _tile_pixel_bytes(plan)


def _tile_pixel_bytes(plan: Plan) -> int:
    return _activation_bytes(plan) + 3 * 4 * plan.gaps.most_planes


def least_gpu_bytes(plan: Plan) -> int:
    """Bytes that a GPU must have: `gpu_bytes` where the batch is stated, else those with one tile."""
    return _gpu_bytes(plan, 1 if plan.run_file.run.tile_batch == "auto" else tiles_at_once(plan))


def _gpu_bytes(plan: Plan, n_tiles: int) -> int:
    """Upper bound of one GPU's memory: the device's own, a call's tiles, a gap's sections and moments."""
    if plan.card.is_local:
        return 0
    block = _largest_block(plan)
    sections = (2 + 2 * plan.card.reach_sections) * prod(plan.source_box(block).shape[1:])
    return int(GPU_BYTES + n_tiles * tile_bytes(plan) + sections + _moments_bytes(plan, block))


def _activation_bytes(plan: Plan) -> int:
    """Bytes a pixel of a tile while the model runs, as its card says."""
    itemsize = 2 if plan.sampling.precision == "bfloat16" else 4
    return plan.card.bytes_per_pixel(plan.gaps.most_planes, itemsize)


def _largest_block(plan: Plan) -> Box:
    """The block that needs most: away from the edges where there is one."""
    counts = plan.blocks.counts
    z, y, x = (min(1, n - 2) if n > 2 else 0 for n in counts)
    return plan.blocks.box((z * counts[1] + y) * counts[2] + x)
