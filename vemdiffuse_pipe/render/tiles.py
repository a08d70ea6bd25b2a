"""The tiles of one gap in a block: what the model is given of each, and where its planes belong.

sections of the block (uint8, host) --once a gap--> sections of the gap (uint8, device)
    --a window each--> tiles --noise of their voxels--> model --> planes (float32, device)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import cast

import torch
from torch import Tensor

from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.lattice import Tile
from vemdiffuse_pipe.geometry.plane_groups import PlaneGroup
from vemdiffuse_pipe.models.noise import voxel_noise
from vemdiffuse_pipe.models.protocol import EstimatingModel, GapView, Model
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.render.hardware import Hardware, RenderCounts
from vemdiffuse_pipe.volume import Voxels

ESTIMATE = -1  # the number of the pass that makes the best estimate; samples are numbered from 0
Item = tuple[int, Tile]  # a pass, and a tile
YxSlices = tuple[slice, slice]


@dataclass(frozen=True)
class BlockInputs:
    """What rendering a block needs. `output_box`: voxels as they are numbered in the whole volume."""

    plan: Plan
    model: Model
    sections: Voxels
    source_box: Box
    output_box: Box
    hardware: Hardware
    counts: RenderCounts


@dataclass(frozen=True)
class GapTiles:
    """The tiles of one gap, or of one restored section, that lie in the block."""

    block: BlockInputs
    gap: PlaneGroup

    @cached_property
    def planes(self) -> range:
        """Planes of the gap inside the block."""
        box = self.block.output_box
        first = max(self.gap.first_plane, box.start[0])
        return range(first, min(self.gap.first_plane + self.gap.n_planes, box.stop[0]))

    @cached_property
    def wanted(self) -> range:
        """Planes that the model is asked for: all of the gap's, unless it makes each by itself."""
        whole = range(self.gap.first_plane, self.gap.first_plane + self.gap.n_planes)
        return self.planes if self.block.model.card.is_local else whole

    @cached_property
    def tiles(self) -> list[Tile]:
        """Tiles that contribute to the block, in yx order."""
        return list(self.block.plan.lattice.touching(self.block.output_box))

    @property
    def passes(self) -> list[range]:
        """Passes that are finished together: the estimate, where the model makes one, and all samples."""
        n_samples, has_estimate = self.block.plan.sampling.samples, self.block.plan.card.has_estimate
        return [r for r in (range(ESTIMATE, ESTIMATE + has_estimate), range(n_samples)) if r]

    def items(self) -> Iterator[Item]:
        """What is rendered, in order: where tiles are blended pass after pass, else tile after tile."""
        if self.block.plan.lattice.is_blended:
            return ((k, tile) for together in self.passes for k in together for tile in self.tiles)
        return ((k, tile) for together in self.passes for tile in self.tiles for k in together)

    def batches(self) -> Iterator[list[Item]]:
        """The items in their order, for one call of the model each: tiles of one size and kind of pass."""
        items = self.items()
        kept = next(items, None)
        while kept is not None:
            size = self.block.hardware.tiles_at_once(self.block.plan)
            batch, shape = [kept], self.window(kept[1]).shape
            kept = None
            for item in islice(items, size - 1):
                is_other_kind = (item[0] == ESTIMATE) != (batch[0][0] == ESTIMATE)
                if is_other_kind or self.window(item[1]).shape != shape:
                    kept = item
                    break
                batch.append(item)
            yield batch
            kept = kept or next(items, None)

    def generate(self, items: list[Item]) -> list[Tensor]:
        """The planes in the block of each item: (planes, tile y, tile x) float32 grey levels, on the device.

        Of an estimate: (2, planes, tile y, tile x), with its spread.

        Where the device's memory runs out, in halves. Raises PlanError where one tile has no room.
        """
        planes = self._generate_at_once(items)
        if planes is not None:
            return list(planes)
        self.block.hardware.limit.halve(len(items))
        self.block.counts.add_out_of_memory()
        torch.cuda.empty_cache()
        half = len(items) // 2
        return self.generate(items[:half]) + self.generate(items[half:])

    def _generate_at_once(self, items: list[Item]) -> Tensor | None:
        """The planes of a batch, None where there is no memory for so many tiles."""
        try:
            planes = self._estimated(items) if items[0][0] == ESTIMATE else self._sampled(items)
        except torch.OutOfMemoryError:
            if len(items) == 1:
                raise PlanError(
                    f"one tile of {self.block.plan.lattice.tile_px} px does not fit into the memory of "
                    f"{self.block.hardware.device}; set core_px (or tile_px) in [model] smaller"
                ) from None
            return None
        self.block.counts.add_call(planes[:, 0] if items[0][0] == ESTIMATE else planes)
        first = self.wanted.start
        return planes[..., self.planes.start - first : self.planes.stop - first, :, :]

    def _estimated(self, items: list[Item]) -> Tensor:
        """Estimates and their spreads: (tiles, 2, wanted planes, y, x)."""
        model = cast(EstimatingModel, self.block.model)
        return torch.stack(model.estimate(self._view(items, self.wanted)), dim=1)

    def _sampled(self, items: list[Item]) -> Tensor:
        """One sample of each item: (tiles, wanted planes, y, x). What lies at a section is that section."""
        between = [p for p in self.wanted if 0 < self.gap.position(p) < 1 or not self.gap.sections[1:]]
        numbers, view = torch.tensor(between, device=self.device), self._view(items, between)

        def noise(step: int) -> Tensor:
            return torch.stack([self._noise(k, numbers, tile, step) for k, tile in items])

        planes = self.block.model.generate(view, noise)
        if len(between) == len(self.wanted):
            return planes
        reach = self.block.plan.card.reach_sections
        at_sections = {self.gap.position(p): p for p in self.wanted if p not in between}
        below = [view.sections[:, reach, None]] if 0 in at_sections else []
        above = [view.sections[:, reach + 1, None]] if 1 in at_sections else []
        return torch.cat([*below, planes, *above], dim=1)

    @property
    def device(self) -> torch.device:
        """Where it is computed."""
        return self.block.hardware.torch_device

    def _view(self, items: list[Item], planes: Sequence[int]) -> GapView:
        return GapView(
            torch.stack([self._sections_of(tile) for _, tile in items]).float(),
            torch.tensor([self.gap.position(p) for p in planes], dtype=torch.float64, device=self.device),
            float(self.gap.ratio),
        )

    def _noise(self, sample: int, planes: Tensor, tile: Tile, step: int) -> Tensor:
        seed, (_, *shape) = self.block.plan.sampling.seed, self.block.plan.lattice.window(tile).shape
        return voxel_noise(seed, sample, planes, tile.start, (shape[0], shape[1]), step=step)

    @cached_property
    def _sections(self) -> Tensor:
        """What the model looks at in all of the block: (2 + 2 * reach, y, x) uint8, on the device.

        Beyond the first and the last section they are mirrored. Of a restored section: (1 + 2 * reach, y, x).
        """
        reach, n = self.block.plan.card.reach_sections, self.block.plan.gaps.n_sections
        own = self.gap.sections
        below = [self._used(_mirrored(own[0] - i, n), own[-1]) for i in range(reach, 0, -1)]
        above = [self._used(_mirrored(own[-1] + i, n), own[0]) for i in range(1, reach + 1)]
        indices = [u - self.block.source_box.start[0] for u in (*below, *own, *above)]
        sections = torch.from_numpy(self.block.sections[indices])
        if not self.block.hardware.is_gpu:
            return sections
        return sections.pin_memory().to(self.device, non_blocking=True)

    def _used(self, section: int, opposite: int) -> int:
        """A section beyond the gap; its mirror image where it is rejected or the gap itself is bridged."""
        is_bridged = self.gap.sections[-1] - self.gap.sections[0] > 1
        return opposite if is_bridged or section in self.block.plan.gaps.rejected else section

    def _sections_of(self, tile: Tile) -> Tensor:
        """The sections around a tile: (sections, y, x) uint8; what of it lies in the volume, mirrored beyond.

        Of a restored section: the source's pixels of the tile and of its halo.
        """
        plan = self.block.plan
        given = plan.model_input_box(self.window(tile))
        _, *first = self.block.source_box.start
        _, *lengths = plan.source.shape
        spans = list(zip(given.start[1:], given.stop[1:], lengths, first, strict=True))
        if all(start >= 0 and stop <= n for start, stop, n, _ in spans):
            rows, columns = (slice(start - a, stop - a) for start, stop, _, a in spans)
            return self._sections[:, rows, columns]
        y, x = (
            torch.tensor(_mirrored_span(start, stop, n), device=self.device) - a
            for start, stop, n, a in spans
        )
        return self._sections[:, y[:, None], x]

    def window(self, tile: Tile) -> Box:
        """The part of a tile that is rendered: all of it, or where it may be cut what lies in the block."""
        plan, window = self.block.plan, self.block.plan.lattice.window(tile)
        return window.intersect(flat(self.block.output_box)) if plan.card.is_local else window

    def overlap(self, tile: Tile) -> tuple[YxSlices, YxSlices]:
        """What tile and block share: where it lies in the tile, and where in the block (y, x)."""
        block, scale = flat(self.block.output_box), self.block.plan.card.scale
        shared = self.block.plan.lattice.kept(tile).intersect(block)
        _, *in_tile = shared.relative_to(self.window(tile).whole((1, scale, scale)).start).slices
        _, *in_block = shared.relative_to(block.start).slices
        return (in_tile[0], in_tile[1]), (in_block[0], in_block[1])


def flat(box: Box) -> Box:
    """The y and x of a box."""
    return Box((0, *box.start[1:]), (1, *box.stop[1:]))


def _mirrored_span(start: int, stop: int, n: int) -> list[int]:
    """start .. stop - 1, reflected about the first and the last of those that are in 0 .. n - 1."""
    first, n_inside = max(0, start), min(n, stop) - max(0, start)
    return [first + _mirrored(i - first, n_inside) for i in range(start, stop)]


def _mirrored(index: int, n: int) -> int:
    """`index` reflected about the first and the last of n: -1 is 1, n is n - 2."""
    index %= max(1, 2 * (n - 1))
    return min(index, 2 * (n - 1) - index)
