"""Cores of exact networks: what the whole plane gives, whatever the blocks, and no more than planned."""

from __future__ import annotations

import hashlib
from functools import cache
from math import prod

import numpy as np
import pytest
import torch
from test_block import SECTIONS, _Affine, model_of, plan_of, small_checkpoint, whole

from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.geometry.lattice import CoreLattice
from vemdiffuse_pipe.models.card import ModelCard, find_card
from vemdiffuse_pipe.models.protocol import GapView, Noise
from vemdiffuse_pipe.plan.estimate import estimate
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.render.block import Hardware, RenderCounts, render_block
from vemdiffuse_pipe.render.finished import on_device_to_grey
from vemdiffuse_pipe.volume import Voxels

TILES = {"tile_px": 32, "overlap_px": 8}
PART = Box((2, 7, 11), (9, 50, 60))

# Of models whose arithmetic no processor and no library rounds otherwise: noise, ramps, blending, mean and
# spread are all in them. Digests of commit 5dafa3b.
BEFORE: dict[str, tuple[dict[str, object], Box | None, str]] = {
    "linear": ({}, None, "9ce45750a27f7720"),
    "linear, a section rejected": ({"rejected": (2,)}, None, "e5469579be516181"),
    "1 sample": ({"samples": 1, **TILES}, None, "d7b15690fd80d8c9"),
    "2 samples, a part": ({"samples": 2, **TILES}, PART, "cae50dd5f9805fc2"),
    "5 samples": ({"samples": 5, **TILES}, None, "9c5ae932ebbb6ab2"),
    "2 samples, no overlap": ({"tile_px": 32, "overlap_px": 0}, None, "1e1d35ed9aeeda67"),
}


class _LooksAside(_Affine):
    """A real small model that looks beyond the edges of the volume: 5 pixels down and 7 to the right."""

    def generate(self, gap: GapView, noise: Noise) -> torch.Tensor:
        return torch.roll(gap.sections.mean(1, keepdim=True), (-5, -7), (-2, -1)) + noise(0)


def test_tiles_are_mirrored_at_the_edges_as_before() -> None:
    plan = plan_of(small_checkpoint(), tile_px=32, overlap_px=0)
    out = render_part(plan, plan.output.box, _LooksAside(plan.card))
    digest = hashlib.sha256(b"".join(out[array].tobytes() for array in sorted(out)))
    assert digest.hexdigest()[:16] == "fe142e3db37d72fa"


@pytest.mark.parametrize("name", BEFORE)
def test_what_was_rendered_before_is_rendered_bit_for_bit(name: str) -> None:
    table, box, expected = BEFORE[name]
    is_linear = name.startswith("linear")
    plan = plan_of("linear" if is_linear else small_checkpoint(), **table)
    out = render_part(plan, box or plan.output.box, model_of(plan) if is_linear else _Affine(plan.card))
    digest = hashlib.sha256(b"".join(out[array].tobytes() for array in sorted(out)))
    assert digest.hexdigest()[:16] == expected


def render_part(
    plan: Plan, box: Box, model: object, hardware: Hardware | None = None, counts: RenderCounts | None = None
) -> dict[str, Voxels]:
    sections = SECTIONS[plan.source_box(box).slices]
    return render_block(plan, model, sections, box, hardware, counts=counts)  # type: ignore[arg-type]


def cores_of(core_px: int, **table: object) -> Plan:
    plan = plan_of(small_checkpoint(), core_px=core_px, **table)
    assert isinstance(plan.lattice, CoreLattice)
    return plan


@cache
def in_cores_of_16() -> dict[str, Voxels]:
    return whole(cores_of(16))


def test_cores_give_what_the_whole_plane_gives() -> None:
    """One core that holds the plane has no border inside it."""
    at_once, in_cores = whole(cores_of(512)), in_cores_of_16()
    difference = np.abs(at_once["em"].astype(int) - in_cores["em"])
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.999


def test_a_halo_of_one_cell_less_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the test above can fail, and the halo is no larger than it must be."""
    monkeypatch.setattr(ModelCard, "tile_halo_px", property(lambda card: 8))
    at_once, in_cores = whole(cores_of(512)), whole(cores_of(16))
    assert np.abs(at_once["em"].astype(int) - in_cores["em"]).max() > 1


WAYS: dict[str, tuple[Zyx, Hardware]] = {
    "blocks that cut cores": ((7, 30, 40), Hardware()),
    "blocks of whole cores, in batches": ((5, 32, 48), Hardware(tile_batch=3)),
    "one block, three threads, in batches": ((13, 53, 71), Hardware(n_threads=3, tile_batch=2)),
}


@pytest.mark.parametrize("way", WAYS)
def test_blocks_batches_and_threads_change_no_voxel_and_cost_what_is_planned(way: str) -> None:
    block, hardware = WAYS[way]
    plan, counts = cores_of(16, block=block), RenderCounts()
    model, expected = model_of(plan), in_cores_of_16()
    grid = BlockGrid(plan.output.shape, block)
    for index in range(grid.n_blocks):
        box = grid.box(index)
        for name, voxels in render_part(plan, box, model, hardware, counts).items():
            assert np.array_equal(voxels, expected[name][box.slices]), (name, box)
    generated = np.count_nonzero(plan.provenance() > 1) * prod(plan.output.shape[1:])
    renders = counts.n_voxels / plan.sampling.samples / generated
    assert renders == pytest.approx(estimate(plan).renders_per_voxel)


class _Cramped(_Affine):
    """A real small model on a device that has room for two tiles, or for none."""

    def __init__(self, card: ModelCard, room: int) -> None:
        super().__init__(card)
        self.room = room

    def generate(self, gap: GapView, noise: Noise) -> torch.Tensor:
        if len(gap.sections) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().generate(gap, noise)


def test_out_of_memory_halves_the_batch_once_and_changes_no_voxel() -> None:
    plan, counts, hardware = plan_of(small_checkpoint(), **TILES), RenderCounts(), Hardware(tile_batch=6)
    out = render_part(plan, plan.output.box, _Cramped(plan.card, 3), hardware, counts)
    expected = render_part(plan, plan.output.box, _Affine(plan.card))
    assert all(np.array_equal(out[name], expected[name]) for name in expected)
    assert counts.tile_batch == 3
    assert 1 <= counts.n_out_of_memory <= 4  # batches that were cut before it was known
    again = RenderCounts()
    render_part(plan, plan.output.box, _Cramped(plan.card, 3), hardware, again)
    assert again.n_out_of_memory == 0


def test_a_tile_that_has_no_room_is_an_error_that_says_what_to_do() -> None:
    plan = plan_of(small_checkpoint(), **TILES)
    with pytest.raises(PlanError, match="core_px"):
        render_part(plan, plan.output.box, _Cramped(plan.card, 0))


def test_grey_levels_are_the_same_made_on_the_device() -> None:
    values = np.random.default_rng(1).uniform(-20, 280, (3, 50, 50)).astype(np.float32)
    values[0, 0, :4] = [0.5, 254.5, 1.4990234375, 255.49]
    grey, extremes = on_device_to_grey(torch.from_numpy(values))
    assert np.array_equal(grey.numpy(), to_grey(values))
    assert extremes.tolist() == [values.min(), values.max()]


def test_blocks_of_1024_px_render_at_most_1_45_pixels_for_one_on_a_gpu() -> None:
    card = find_card("default")
    for core, most in ((1024, 1.45), (2048, 1.2)):
        lattice = CoreLattice((10**5, 10**5), core, card.tile_halo_px, card.multiple_px)
        pixels = lattice.n_rendered(0, 8 * core, 9 * core) * lattice.n_rendered(1, 8 * core, 9 * core)
        assert pixels / core**2 < most
