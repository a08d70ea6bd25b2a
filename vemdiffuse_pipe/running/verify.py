"""Is an output what it says it is? Every shard against its receipt, and some places rendered again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from math import ceil

import numpy as np

from vemdiffuse_pipe.errors import CorruptDataError, MissingDataError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.output.mask import read_outside
from vemdiffuse_pipe.output.opening import (
    identity_of,
    open_output,
    open_run_model,
    prepare,
    stored_run_file,
    with_contrast,
)
from vemdiffuse_pipe.output.provenance import write_filled_provenance
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.records.receipts import Receipt, checksum, read_receipts
from vemdiffuse_pipe.records.shards import ShardSet
from vemdiffuse_pipe.render.block import Hardware, render_block
from vemdiffuse_pipe.running import stages
from vemdiffuse_pipe.running.stages import open_worker_context
from vemdiffuse_pipe.storage import open_sink, parse_address
from vemdiffuse_pipe.storage.retry import RetryPolicy
from vemdiffuse_pipe.survey.kept_sections import read_kept
from vemdiffuse_pipe.volume import Sink, Voxels

PROBE_PX = 256
N_READERS = 4


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found. `n_missing`: shards without a receipt; `n_skipped`: that a mask leaves out. `wrong`:
    shards that are not there, cannot be decoded or hold other voxels than their receipt says.
    `n_different`: places that rendered otherwise.
    """

    n_shards: int
    n_missing: int
    wrong: tuple[Box, ...]
    n_rendered: int
    n_different: int
    n_skipped: int = 0

    @property
    def is_good(self) -> bool:
        """True where every shard is there and right, and every place rendered the same."""
        return not (self.n_missing or self.wrong or self.n_different)


def verify(output: str, *, n_rendered: int = 3, seed: int = 0, repair: bool = False) -> Verification:
    """Check all that is stored at `output`, and render `n_rendered` places of it again.

    `repair`: shards that are wrong are rendered and written again first; what is found is what was left.

    A place is at most one gap of a stored shard, 256 px wide: `seed` chooses. Raises OutputError where there
    is no such output, SourceError and ModelError where what it was made from is gone.
    """
    sink = open_sink(output)
    _, digest = identity_of(sink, output)
    right, wrong = _compare(sink, read_receipts(parse_address(output), digest))
    if repair and wrong:
        _write_again(output, right.grid, wrong)
        right, wrong = _compare(open_sink(output), read_receipts(parse_address(output), digest))
    shards = right.grid
    outside = read_outside(parse_address(output), shards)
    n_skipped = len(outside | right) - len(right) - sum(shard in outside for shard in wrong)
    different = _render_again(output, right, n_rendered, random.Random(seed)) if len(right) else []  # noqa: S311
    return Verification(
        n_shards=shards.n_blocks,
        n_missing=shards.n_blocks - len(right) - len(wrong) - n_skipped,
        wrong=tuple(shards.box(shard) for shard in sorted(wrong)),
        n_rendered=len(different),
        n_different=sum(different),
        n_skipped=n_skipped,
    )


def _compare(sink: Sink, receipts: Iterator[tuple[str, Receipt]]) -> tuple[ShardSet, set[int]]:
    """Shards that are as a receipt says, and those that are as none says. Constant memory, a few readers."""
    right, wrong = ShardSet(BlockGrid(sink.spec.shape, sink.spec.shard_shape)), set[int]()
    claims = ((shard, i, receipt) for _, receipt in receipts for i, shard in enumerate(receipt.shards))

    def is_right(claim: tuple[int, int, Receipt]) -> bool:
        shard, i, receipt = claim
        return shard in right or _holds(sink, right.grid.box(shard), _stated(receipt, i))

    with ThreadPoolExecutor(N_READERS) as pool:
        while batch := list(islice(claims, 8 * N_READERS)):
            for (shard, *_), good in zip(batch, pool.map(is_right, batch), strict=True):
                if good:
                    right.add(shard)
                    wrong.discard(shard)
                elif shard not in right:
                    wrong.add(shard)
    return right, wrong


def _write_again(output: str, shards: BlockGrid, wrong: set[int]) -> None:
    """Make each wrong shard anew, one at a time, with a receipt of its own."""
    source, plan = prepare(stored_run_file(open_sink(output), output))
    plan = with_contrast(plan, source)
    open_output(plan)
    place = open_worker_context(plan, Hardware(plan.run_file.run.device), RetryPolicy(), source)
    for shard in sorted(wrong):
        box = shards.box(shard)
        stages.write(place, stages.render(place, stages.read(place, plan.blocks.index_of(box.start), box)))
    place.close()
    write_filled_provenance(plan)


def _stated(receipt: Receipt, position: int) -> dict[str, str]:
    """The checksums that a receipt states for one of its shards, by array."""
    return {array: sums[position] for array, sums in receipt.checksums.items()}


def _holds(sink: Sink, shard_box: Box, checksums: dict[str, str]) -> bool:
    try:
        return {array: checksum(sink.read(array, shard_box)) for array in sink.arrays} == checksums
    except (MissingDataError, CorruptDataError):
        return False


def _render_again(output: str, right: ShardSet, n_places: int, chance: random.Random) -> list[bool]:
    """For each place, whether it came out otherwise. On a GPU one grey level is no difference."""
    source, plan = prepare(stored_run_file(open_sink(output), output))
    plan = with_contrast(plan, source)
    sink, model = open_output(plan), open_run_model(plan)
    device = plan.run_file.run.device
    tolerance = 0 if device == "cpu" else 1
    different = []
    for _ in range(n_places):
        place = _place(plan, right.grid.box(right.member(chance.randrange(len(right)))), chance)
        sections = read_kept(source, plan.source_box(place), plan.gaps.rejected)
        arrays = render_block(plan, model, sections, place, Hardware(device))
        most = max(_largest_difference(voxels, sink.read(name, place)) for name, voxels in arrays.items())
        different.append(most > tolerance)
    return different


def _place(plan: Plan, shard_box: Box, chance: random.Random) -> Box:
    """A part of a shard that is quickly rendered: the planes of about one gap, at most 256 px wide."""
    size = (ceil(plan.gaps.r) + 1, PROBE_PX, PROBE_PX)
    z, y, x = (
        chance.randrange(start, max(start + 1, stop - n + 1))
        for start, stop, n in zip(shard_box.start, shard_box.stop, size, strict=True)
    )
    return Box.of_shape(size, (z, y, x)).intersect(shard_box)


def _largest_difference(ours: Voxels, theirs: Voxels) -> int:
    return int(np.abs(ours.astype(np.int16) - theirs).max())
