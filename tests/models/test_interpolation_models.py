"""Interpolation equals scipy's of the whole volume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from vemdiffuse_pipe.models.interpolation import Interpolation
from vemdiffuse_pipe.models.protocol import GapView


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("ratio", [2, 5, 11])
def test_a_gap_gets_what_scipy_gives_for_the_whole_volume(order: int, ratio: int) -> None:
    model = Interpolation(order)
    reach = model.card.reach_sections
    stack = np.random.default_rng(0).integers(0, 256, (60, 3, 5)).astype(np.float64)
    u = 30
    window = torch.from_numpy(stack[u - reach : u + 2 + reach]).float()[None]
    positions = torch.arange(1, ratio, dtype=torch.float64) / ratio
    ours = model.generate(GapView(window, positions, ratio), torch.empty)[0].numpy()
    z, y, x = np.meshgrid(u + positions.numpy(), np.arange(3), np.arange(5), indexing="ij")
    expected = map_coordinates(stack, [z, y, x], order=order, mode="mirror")
    assert ours.shape == (ratio - 1, 3, 5)
    assert np.abs(ours - expected).max() < 2e-4
