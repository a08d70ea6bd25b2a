"""How the gaps of a batch are cut and imaged: drawn at random, over the range that microscopes cover.

dropped      sections one voxel thick, as planes are, imaged as the volume was
averaged     sections as thick as the gap, thin planes wanted
thick        thick sections, planes as thick as sections
microscope   any thickness, pixels of 4 to 20 nm, noise, blur, gain, offset, misalignment
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vemdiffuse_pipe.training.microscope import Cutting, Imaging

KINDS = {"dropped": 0.28, "averaged": 0.18, "thick": 0.08, "microscope": 0.46}
FACTORS = ("thickness", "pixel", "noise", "contrast", "misalignment", "blur")
WIDEST_GAP_NM = 160.0
_LOG_PIXELS = (math.log(0.4), math.log(2.0))  # in voxels of 10 nm


@dataclass(frozen=True, slots=True)
class Recipe:
    """`without`: factors that are left out, to measure what each is worth. `voxel_nm`: of the volume."""

    voxel_nm: float = 10.0
    without: frozenset[str] = frozenset()

    def draw(self, ratio: int, rng: np.random.Generator) -> tuple[Cutting, Imaging]:
        """How one gap of `ratio` is cut, and how its sections are imaged."""
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        if kind == "dropped" or (kind != "microscope" and "thickness" in self.without):
            return Cutting(ratio), Imaging()
        if kind == "averaged":
            return Cutting(ratio, section=ratio), Imaging()
        if kind == "thick":
            thick = ratio * (1.0 if rng.random() < 0.6 else rng.uniform(1 / ratio, 1))
            return Cutting(ratio, section=thick, plane=thick), Imaging()
        return self._cutting(ratio, rng), self._imaging(rng)

    def _cutting(self, ratio: int, rng: np.random.Generator) -> Cutting:
        """Pixels, distance of planes and thickness."""
        is_fixed = "pixel" in self.without or rng.random() < 0.2
        pixel = 1.0 if is_fixed else math.exp(rng.uniform(*_LOG_PIXELS))
        is_isotropic = rng.random() < 0.6 or pixel == 1.0
        step = pixel * (1.0 if is_isotropic else math.exp(rng.uniform(-0.1, 0.8)))
        step = min(step, WIDEST_GAP_NM / self.voxel_nm / ratio)
        pixel = min(pixel, step * 1.1)
        gap, thin = ratio * step, max(step, 1.0)
        section = gap if rng.random() < 0.45 else gap * rng.uniform(0, 1)
        if "thickness" in self.without or rng.random() < 0.15:
            section = thin
        return Cutting(ratio, step, pixel, section, section if rng.random() < 0.85 else thin)

    def _imaging(self, rng: np.random.Generator) -> Imaging:
        """Each factor in four of five gaps, of any strength."""
        has = {f: f not in self.without and rng.random() < 0.8 for f in FACTORS}
        return Imaging(
            blur_px=rng.uniform(0.3, 1.0) if has["blur"] and rng.random() < 0.5 else 0.0,
            white=_between(rng, 0.02, 0.4) if has["noise"] else 0.0,
            grain=_between(rng, 0.03, 0.8) if has["noise"] and rng.random() < 0.7 else 0.0,
            grain_px=rng.uniform(0.5, 1.8),
            dose=rng.uniform(-0.2, 0.3),
            gain=rng.uniform(0, 0.1) if has["contrast"] else 0.0,
            offset=rng.uniform(0, 0.15) if has["contrast"] else 0.0,
            shift_px=rng.uniform(0, 1.2) if has["misalignment"] else 0.0,
            shear=rng.uniform(0, 0.01) if has["misalignment"] else 0.0,
        )


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))
