"""Motion between two sections: dense optical flow, both warped to where a plane lies, and blended.

    section 0       plane at t          section 1
        x - - - - - -> x + F_0 . . . . . . .          F_0 = -(1 - t) t F_01 + t^2 F_10
        . . . . . . . . x + F_1 <- - - - - x          F_1 = (1 - t)^2 F_01 - t (1 - t) F_10

    plane(x) = (1 - t) section_0(x + F_0) + t section_1(x + F_1)

F_01 takes a place of section 0 to where section 1 shows the same, F_10 back. The flow: Le Besnerais &
Champagnat, ICIP 2005, by scikit-image. The flow at a plane from the flows between its sections: Jiang et al.,
CVPR 2018, Eq. 4. Windows of 31 px and 3 warps: benchmarks/README.md.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from skimage.registration import optical_flow_ilk
from torch import Tensor

from vemdiffuse_pipe.models.card import FLOW, ModelCard
from vemdiffuse_pipe.models.protocol import GapView
from vemdiffuse_pipe.models.samplers import Noise

RADIUS_PX, N_WARPS = 15, 3

Image = NDArray[np.float32]


class OpticalFlow:
    """Both sections of a gap, moved along the optical flow between them. On a CPU, wherever sections are."""

    @property
    def card(self) -> ModelCard:
        """FLOW."""
        return FLOW

    def generate(self, gap: GapView, noise: Noise) -> Tensor:
        """The planes between: (b, n, y, x) float32; `noise` is not asked for."""
        tiles = gap.sections.cpu().numpy().astype(np.float32)
        positions = [float(t) for t in gap.positions]
        planes = np.stack([planes_along_flow(lower, upper, positions) for lower, upper in tiles])
        return torch.from_numpy(planes).to(gap.sections.device)


def planes_along_flow(lower: Image, upper: Image, positions: list[float]) -> Image:
    """Planes at `positions`, each in (0, 1), between two sections: (n, y, x) float32, grey levels.

    `lower`, `upper`: (y, x) float32, grey levels.
    """
    up, down = flow_between(lower, upper), flow_between(upper, lower)
    grid = np.indices(lower.shape, np.float32)

    def plane(t: float) -> Image:
        from_lower = map_coordinates(lower, grid + t * t * down - (1 - t) * t * up, order=1, mode="nearest")
        from_upper = map_coordinates(
            upper, grid + (1 - t) ** 2 * up - t * (1 - t) * down, order=1, mode="nearest"
        )
        blended: Image = (1 - t) * from_lower + t * from_upper
        return blended

    return np.stack([plane(t) for t in positions]).astype(np.float32)


def flow_between(fixed: Image, moving: Image) -> Image:
    """Where `moving` shows what `fixed` shows at each pixel, less that pixel: (2, y, x) float32, px."""
    flow: Image = optical_flow_ilk(fixed / 255, moving / 255, radius=RADIUS_PX, num_warp=N_WARPS)
    return flow
