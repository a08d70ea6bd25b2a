"""By how much a model is not exact under tiling."""

from __future__ import annotations

from torch import Tensor

from vemdiffuse_pipe.models.protocol import GapView, Model
from vemdiffuse_pipe.models.samplers import Noise


def tile_deviation(model: Model, gap: GapView, noise: Noise, tile_px: int) -> float:
    """Mean absolute difference, in grey levels, of two tiles where they overlap: what a card declares.

    `gap`: sections `tile_px` high and wider than a tile, at most twice; the tiles are its left and its
    right end, and share what is left over. Both are given the noise of their voxels.
    """
    width = gap.sections.shape[-1]
    shared = 2 * tile_px - width
    left = model.generate(_columns(gap, 0, tile_px), lambda step: noise(step)[..., :tile_px])
    right = model.generate(_columns(gap, width - tile_px, width), lambda step: noise(step)[..., -tile_px:])
    difference: Tensor = (left[..., -shared:] - right[..., :shared]).abs().mean()
    return difference.item()


def _columns(gap: GapView, first: int, stop: int) -> GapView:
    return GapView(gap.sections[..., first:stop], gap.positions, gap.ratio)
