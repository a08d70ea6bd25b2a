"""Pairs: crops lie where they should, noise has the stated variance, batches belong to their step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from vemdiffuse_pipe.errors import DataError, PlanError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.testing import ArraySource, position_coded
from vemdiffuse_pipe.training.pairs import (
    MadeRaw,
    PairBatches,
    halved,
    rim_px,
    with_noise,
)
from vemdiffuse_pipe.training.pool import SlabPool
from vemdiffuse_pipe.training.slabs import CropSpec, SlabSchedule, TrainingVolume
from vemdiffuse_pipe.volume import OnHole, Source, VolumeSpec, Voxels, ignore_hole

SIDE = 16


@contextmanager
def batches(
    scale: int, clean: Source, raw: Source, *, least_contrast: float = 0.0, pool: int = 8, seed: int = 3
) -> Iterator[PairBatches]:
    """Of crops of 16 px; a volume begins and ends with a raw pixel."""
    side = SIDE + rim_px(scale)
    volume = TrainingVolume(clean, (100.0, 50.0), clean.spec.frame.box, raw=raw)
    schedule = SlabSchedule([volume], CropSpec(0, 1, side, side, align=scale), seed, pool, 1 << 16)
    made = PairBatches(SlabPool(schedule), scale, 6, least_contrast=least_contrast)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("grey", [40, 120, 200])
def test_noise_has_the_variance_that_was_stated(grey: int) -> None:
    flat = np.full((200, 200), grey, np.uint8)
    noisy = with_noise(flat, peak=200, read_std=3, seed=5).astype(float)
    assert noisy.mean() == pytest.approx(grey, abs=0.5)
    assert noisy.var() == pytest.approx(255 * grey / 200 + 9, rel=0.05)
    assert np.array_equal(noisy, with_noise(flat, peak=200, read_std=3, seed=5))
    assert not np.array_equal(noisy, with_noise(flat, peak=200, read_std=3, seed=6))


def test_a_halved_volume_holds_means_of_four() -> None:
    clean = position_coded((3, 7, 9))
    expected = clean[:, :6, :8].reshape(3, 3, 2, 4, 2).mean(axis=(2, 4))
    assert np.abs(halved(clean) - expected).max() <= 0.5


@pytest.mark.parametrize("scale", [1, 2])
def test_raw_and_clean_of_a_batch_are_of_one_place(scale: int) -> None:
    """A volume that is linear in y and x is its own halving and doubling: raw given and clean agree."""
    y, x = np.mgrid[:60, :70]
    clean = np.stack([(y + 2 * x + 20 * z).astype(np.uint8) for z in range(3)])
    raw = clean if scale == 1 else halved(clean)
    with batches(scale, ArraySource(clean), ArraySource(raw)) as made:
        for step in range(20):
            batch = made.batch(step)
            assert batch.ratio == 2
            assert batch.sections.shape == (6, 2, SIDE, SIDE)
            assert torch.equal(batch.sections[:, 0], batch.sections[:, 1])
            tolerance = 1e-6 if scale == 1 else 1.2 / 50
            assert (batch.sections[:, :1] - batch.targets).abs().max() <= tolerance


def test_a_batch_belongs_to_its_step_and_shares_of_it_are_the_batch() -> None:
    clean = ArraySource(position_coded((3, 40, 40)))
    with batches(1, clean, clean) as made, batches(1, clean, clean) as later:
        first, second = made.batch(2), made.batch(7)
        assert torch.equal(later.batch(7).targets, second.targets)
        assert not torch.equal(first.targets, second.targets)
        shares = [made.batch(9, part).targets for part in (slice(0, 2), slice(2, 6))]
        assert torch.equal(torch.cat(shares), made.batch(9).targets)


@pytest.mark.parametrize("scale", [1, 2])
def test_what_is_made_of_a_clean_volume_is_a_function_of_the_box(scale: int) -> None:
    clean = ArraySource(np.full((3, 40, 48), 120, np.uint8))
    made = MadeRaw(clean, scale, peak=200, read_std=3, seed=5)
    assert made.spec.shape == (3, 40 // scale, 48 // scale)
    assert made.spec.frame.corner_nm == clean.spec.frame.corner_nm
    box = Box((0, 0, 0), (3, 16, 16))
    assert np.array_equal(made.read(box), made.read(box))
    assert not np.array_equal(made.read(box), made.read(box.shift((0, 1, 0))))
    assert not np.array_equal(made.read(box), MadeRaw(clean, scale, 200, 3, seed=6).read(box))
    assert made.read(box).std() > 5
    assert (MadeRaw(clean, scale, None).read(box) == 120).all()


def test_crops_that_are_black_or_flat_are_replaced() -> None:
    clean = position_coded((4, 40, 40))
    raw = clean.copy()
    raw[:3] = 0  # what registration leaves where the raw image did not reach
    with batches(1, ArraySource(clean), ArraySource(raw), least_contrast=0.01) as made:
        for step in range(10):
            assert (made.batch(step).sections.std(dim=(2, 3)) > 0.1).all()
        assert made.n_rejected > 0
    with batches(1, ArraySource(raw), ArraySource(clean), least_contrast=0.01) as made:
        for step in range(10):  # the clean image may be the one that ends before
            assert (made.batch(step).targets.std(dim=(2, 3)) > 0.1).all()
    with (
        batches(1, ArraySource(clean), ArraySource(raw * 0), least_contrast=0.01) as made,
        pytest.raises(DataError, match="black or flat"),
    ):
        made.batch(0)


def test_a_volume_without_room_for_a_pair_is_refused() -> None:
    clean = ArraySource(position_coded((3, 16, 16)))
    with batches(1, clean, clean) as made:
        assert made.batch(0).targets.shape == (6, 1, SIDE, SIDE)
    with pytest.raises(PlanError, match="no room"), batches(2, clean, clean):
        pass


class Endless:
    """A volume of 1e15 voxels that are what their places are, and the largest box that was read of it."""

    spec = VolumeSpec(
        "memory",
        "array",
        Frame((10**5, 10**5, 10**5), (1, 1, 1)),
        "uint8",
        (64, 64, 64),
        (64, 64, 64),  # type: ignore[arg-type]
    )

    def __init__(self) -> None:
        self.largest = 0

    def read(self, box: Box, on_hole: OnHole = ignore_hole) -> Voxels:
        self.largest = max(self.largest, box.n_voxels)
        z, y, x = np.ogrid[box.slices]
        return ((3 * z + y + 2 * x) % 199 + 1).astype(np.uint8)


def test_pairs_come_out_of_volumes_that_no_memory_holds() -> None:
    clean, raw = Endless(), Endless()
    with batches(1, clean, raw, pool=2) as made:
        batch = made.batch(12345)
        assert torch.equal(batch.sections[:, :1], batch.targets)
        decoded, used = made.n_bytes
    assert clean.largest == raw.largest <= 1 << 20
    assert used == 2 * 6 * SIDE**2
    assert 0 < decoded < 100 << 20


def test_a_slab_of_raw_pixels_is_the_slab_of_clean_ones() -> None:
    clean = position_coded((5, 41, 53))
    source = ArraySource(clean)
    region = Box((0, 2, 4), (5, 40, 52))
    volume = TrainingVolume(source, (0.0, 1.0), region, raw=MadeRaw(source, 2, None))
    side = SIDE + rim_px(2)
    schedule = SlabSchedule([volume], CropSpec(0, 1, side, side, align=2), slab_bytes=1 << 11)
    with SlabPool(schedule) as pool:
        pool.move_to(range(40))
        for number in range(40):
            held = pool.get(number)
            assert held.raw is not None
            assert np.array_equal(held.raw, halved(held.voxels))
            assert np.array_equal(held.voxels, clean[held.slab.box.slices])
            assert region.contains(held.slab.box)
