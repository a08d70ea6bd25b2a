"""Optical flow follows what moves between two sections, where interpolation along z shows it twice."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from vemdiffuse_pipe.models.card import FLOW
from vemdiffuse_pipe.models.flow import OpticalFlow, flow_between
from vemdiffuse_pipe.models.interpolation import Interpolation
from vemdiffuse_pipe.models.protocol import GapView
from vemdiffuse_pipe.phantom import phantom

SIDE, SHIFT_PX = 96, (4.0, -2.0)
INSIDE = np.s_[16:-16, 16:-16]


def section(share: float = 0.0) -> np.ndarray:
    """A section of tissue that has moved by a share of SHIFT_PX: (y, x) float32."""
    tissue = ndimage.gaussian_filter(phantom((1, SIDE, SIDE), 3)[0].astype(np.float32), 1)
    return ndimage.shift(tissue, [share * s for s in SHIFT_PX], order=3, mode="mirror").astype(np.float32)


def gap(lower: np.ndarray, upper: np.ndarray, *positions: float) -> GapView:
    sections = torch.from_numpy(np.stack([lower, upper]))[None]
    return GapView(sections, torch.tensor(positions, dtype=torch.float64), len(positions) + 1)


def error(planes: torch.Tensor, truth: np.ndarray) -> float:
    return float(np.abs(planes[0, 0].numpy() - truth)[INSIDE].mean())


def test_the_flow_is_the_shift_that_was_planted() -> None:
    flow = flow_between(section(), section(1.0))
    for component, planted in zip(flow, SHIFT_PX, strict=True):
        assert abs(float(np.median(component[INSIDE])) - planted) < 0.15


def test_a_plane_lies_where_the_tissue_has_moved_to_by_then() -> None:
    for t in (0.25, 0.5):
        view, truth = gap(section(), section(1.0), t), section(t)
        moved, blended = (m.generate(view, torch.empty) for m in (OpticalFlow(), Interpolation(1)))
        assert error(moved, truth) < error(blended, truth) / 3


def test_two_equal_sections_have_that_section_between_them_and_flat_ones_are_no_trouble() -> None:
    for same in (section(), np.full((SIDE, SIDE), 7, np.float32)):
        planes = OpticalFlow().generate(gap(same, same, 0.5), torch.empty)
        assert np.abs(planes[0, 0].numpy() - same).max() < 1e-3


def test_its_card_says_by_how_much_tiles_differ() -> None:
    assert FLOW.tile_deviation > 0
    assert not FLOW.is_tile_exact
