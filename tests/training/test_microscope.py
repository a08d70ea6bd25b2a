"""Gaps as microscopes would have cut them: exact where nothing is degraded, else by what is stated."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vemdiffuse_pipe.evaluation.degradation import degrade
from vemdiffuse_pipe.models.gap_networks import N_CONDITIONS
from vemdiffuse_pipe.training.degraded import DegradedBatches, DegradedGaps
from vemdiffuse_pipe.training.microscope import CutGap, Cutting, Imaging, box_means, cut_gap
from vemdiffuse_pipe.training.recipes import FACTORS, Recipe
from vemdiffuse_pipe.volume import Voxels

CROP = 16


def voxels_of(cutting: Cutting, seed: int = 0) -> Tensor:
    n = cutting.extent(CROP)
    return torch.randn(cutting.depth, n, n, generator=torch.Generator().manual_seed(seed))


def cut(cutting: Cutting, imaging: Imaging = Imaging(), ends: tuple[float, ...] = ()) -> CutGap:  # noqa: B008
    return cut_gap(voxels_of(cutting), cutting, imaging, CROP, torch.Generator().manual_seed(1), ends)


@pytest.mark.parametrize("r", [2, 3, 4, 5, 8])
def test_without_degradation_sections_and_planes_are_voxels_bit_for_bit(r: int) -> None:
    voxels, gap = voxels_of(Cutting(r)), cut(Cutting(r))
    lower = next(z for z in range(len(voxels)) if torch.equal(_middle(voxels[z]), gap.sections[1]))
    for i, section in enumerate(gap.sections):
        assert torch.equal(section, _middle(voxels[lower + (i - 1) * r]))
    for j, plane in enumerate(gap.clean, 1):
        assert torch.equal(plane, _middle(voxels[lower + j]))
    assert torch.equal(gap.noisy, gap.clean)
    assert not gap.noise_variance.any()


@pytest.mark.parametrize("r", [4, 5])
def test_thick_sections_are_those_that_are_compared_with_ground_truth(r: int) -> None:
    """The same boxes as `evaluation.degrade`, which rounds them to grey levels."""
    cutting = Cutting(r, section=r)
    grey = np.random.default_rng(0).integers(0, 256, voxels_of(cutting).shape, dtype=np.uint8)
    gap = cut_gap(torch.from_numpy(grey).float(), cutting, Imaging(), CROP, torch.Generator())
    assert any(_is_averaged(gap.sections[1:3], grey[first:], r) for first in range(2 * r))


def _is_averaged(sections: Tensor, grey: Voxels, r: int) -> bool:
    boxes = torch.from_numpy(degrade(grey, r, "averaged").sections).float()[:2]
    return bool((sections - torch.stack([_middle(s) for s in boxes])).abs().max() < 0.51)


def test_boxes_have_weights_of_sum_one_and_one_voxel_where_they_are_one_wide() -> None:
    weights = box_means(torch.tensor([2.0, 2.5, 3.25]), 1.0, 7)
    assert torch.allclose(weights.sum(1), torch.ones(3))
    assert weights[0].tolist() == [0, 0, 1, 0, 0, 0, 0]
    assert weights[1].tolist() == [0, 0, 0.5, 0.5, 0, 0, 0]
    wide = box_means(torch.tensor([3.0]), 4.0, 7)
    assert torch.allclose(wide, torch.tensor([[0, 0.125, 0.25, 0.25, 0.25, 0.125, 0]]))


def test_noise_is_as_strong_as_stated_and_not_in_the_clean_planes() -> None:
    imaging = Imaging(white=0.3, grain=0.4, grain_px=1.2)
    plain, noisy = cut(Cutting(6)), cut(Cutting(6), imaging)
    assert torch.equal(plain.clean, noisy.clean)
    added = torch.cat([noisy.noisy - noisy.clean, noisy.sections - plain.sections])
    assert float(added.std()) == pytest.approx(0.5, rel=0.05)
    assert float(noisy.noise_variance.mean()) == pytest.approx(0.25)


def test_only_sections_are_misaligned_and_change_in_contrast() -> None:
    plain = cut(Cutting(4))
    for imaging in (Imaging(shift_px=0.5), Imaging(shear=0.05), Imaging(gain=0.2), Imaging(offset=0.2)):
        gap = cut(Cutting(4), imaging)
        assert torch.equal(gap.noisy, plain.noisy)
        assert (gap.sections != plain.sections).float().mean() > 0.9


def test_a_plane_at_a_section_shows_its_neighbours() -> None:
    cutting = Cutting(4)
    gap, more = cut(cutting), cut(cutting, ends=(0.0,))
    assert more.clean.shape[0] == gap.clean.shape[0] + 1
    assert torch.equal(more.clean[:3], gap.clean)
    lower = cutting.depth - 1 - cutting.gap
    below = _middle(voxels_of(cutting)[math.floor(lower / 2) - 1])
    assert torch.allclose(more.clean[3], (below + gap.clean[0]) / 2)


def batches(**changes: object) -> DegradedBatches:
    volumes = [np.random.default_rng(i).integers(0, 256, (60, 80, 80), dtype=np.uint8) for i in range(2)]
    options = {"batch_size": 6, "crop_px": CROP, "ratios": {3: 0.5, 5: 0.5}, **changes}
    return DegradedBatches(volumes, **options)  # type: ignore[arg-type]


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    first, again, other = batches(end_share=0.5), batches(end_share=0.5), batches(seed=1)
    steps = [3, 0, 3, 1]
    assert all(_same(first.batch(s), again.batch(s)) for s in steps)
    assert not _same(first.batch(0), other.batch(0))


def test_a_batch_has_what_networks_and_objectives_need() -> None:
    for step in range(8):
        batch = batches(end_share=0.5).batch(step)
        n = len(batch.positions)
        assert n in (batch.ratio - 1, batch.ratio)
        assert batch.sections.shape == (6, 4, CROP, CROP)
        assert batch.clean.shape == batch.noisy.shape == batch.noise_variance.shape == (6, n, CROP, CROP)
        assert batch.conditions.shape == (6, N_CONDITIONS)
        assert all(t.isfinite().all() for t in (batch.sections, batch.clean, batch.noisy, batch.conditions))


def test_factors_that_are_left_out_are_in_no_gap() -> None:
    rng, recipe = np.random.default_rng(0), Recipe(without=frozenset(FACTORS))
    for _ in range(200):
        cutting, imaging = recipe.draw(5, rng)
        assert cutting == Cutting(5)
        assert imaging.noise_variance == imaging.shift_px == imaging.gain == imaging.blur_px == 0


def _same(a: DegradedGaps, b: DegradedGaps) -> bool:
    return all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("sections", "noisy", "conditions"))


def _middle(plane: Tensor) -> Tensor:
    first = (plane.shape[0] - 1) // 2 - CROP // 2
    return plane[first : first + CROP, first : first + CROP]
