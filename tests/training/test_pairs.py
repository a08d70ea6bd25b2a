"""Pairs: crops lie where they should, noise has the stated variance, batches belong to their step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.testing import position_coded
from vemdiffuse_pipe.training.gaps import Batches
from vemdiffuse_pipe.training.pairs import (
    PairSampler,
    PairVolume,
    crop_starts,
    cut_pairs,
    halved,
    with_noise,
)


def test_crops_cover_the_image_and_overlap_by_sixty_pixels() -> None:
    assert crop_starts(256) == [0]
    assert crop_starts(700) == [0, 196, 392, 444]
    assert crop_starts(648) == [0, 196, 392]
    with pytest.raises(PlanError, match="holds no crop"):
        crop_starts(255)


@pytest.mark.parametrize("scale", [1, 2])
def test_pairs_are_cut_from_one_place_and_only_where_they_are_valid(scale: int) -> None:
    clean = np.arange(60 * 80, dtype=np.uint16).reshape(60, 80)
    raw = clean[::scale, ::scale]
    valid = np.ones(clean.shape, bool)
    valid[3, 5] = False
    pairs = list(cut_pairs(raw, clean, valid, scale=scale, crop_px=20, stride_px=16))  # type: ignore[arg-type]
    assert len(pairs) == 4 * 5 - 1
    for small, large in pairs:
        assert np.array_equal(small, large[::scale, ::scale])
    assert pairs[0][1][0, 0] == clean[0, 16]
    with pytest.raises(PlanError, match="does not fit"):
        list(cut_pairs(raw[1:], clean, scale=scale))  # type: ignore[arg-type]


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


@pytest.mark.parametrize("task", ["denoise", "superres"])
def test_raw_and_clean_of_a_batch_are_of_one_place(task: str) -> None:
    """A volume that is linear in y and x is its own halving and doubling: raw given and clean agree."""
    y, x = np.mgrid[:60, :70]
    clean = np.stack([(y + 2 * x + 20 * z).astype(np.uint8) for z in range(3)])
    raw = clean if task == "denoise" else halved(clean)
    sampler = PairSampler([PairVolume.of(raw, clean)], task, crop_px=16, batch_size=6, seed=3)  # type: ignore[arg-type]
    batch = sampler.batch(4)
    assert batch.ratio == 2
    assert batch.sections.shape == (6, 2, 16, 16)
    assert torch.equal(batch.sections[:, 0], batch.sections[:, 1])
    tolerance = 1e-6 if task == "denoise" else 1.1 / sampler.volumes[0].std
    assert (batch.sections[:, :1] - batch.targets).abs().max() <= tolerance
    again, next_one = sampler.batch(4), sampler.batch(5)
    assert torch.equal(again.targets, batch.targets)
    assert not torch.equal(next_one.targets, batch.targets)


def test_shares_of_a_batch_are_the_batch() -> None:
    clean = position_coded((3, 40, 40))
    batches: Batches = PairSampler([PairVolume.of(clean, clean)], "denoise", crop_px=16, batch_size=6)
    shares = [batches.batch(2, part).targets for part in (slice(0, 2), slice(2, 6))]
    assert torch.equal(torch.cat(shares), batches.batch(2).targets)


def test_volumes_that_are_no_pair_are_refused() -> None:
    clean = position_coded((3, 40, 40))
    with pytest.raises(PlanError, match="no pair for superres"):
        PairSampler([PairVolume.of(clean, clean)], "superres", crop_px=16)
    with pytest.raises(PlanError, match="hold no crop"):
        PairSampler([PairVolume.of(clean, clean)], "denoise", crop_px=40)
