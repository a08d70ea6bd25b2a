"""Models without weights: what interpolations and filters say where a network says its sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field


@dataclass(frozen=True, slots=True)
class InterpolationSizes:
    """An interpolation: a fixed weight for each section."""

    reach_sections: Annotated[int, Field(ge=0, le=64)] = 0

    context_px = 0
    multiple_px = 1
    tile_px = 0
    ratio = 0

    def flop_per_pixel(self, n_planes: int) -> float:
        """One multiplication and one addition for each section and plane."""
        return 2.0 * (2 + 2 * self.reach_sections) * n_planes

    def bytes_per_pixel(self, n_planes: int, itemsize: int) -> int:
        """Sections and planes in float32."""
        return 4 * (2 + 2 * self.reach_sections + 2 * n_planes)


@dataclass(frozen=True, slots=True)
class FlowSizes:
    """Optical flow between the two sections of a gap, from coarse to fine over a whole tile."""

    context_px = 256
    multiple_px = 1
    tile_px = 256
    reach_sections = 0
    ratio = 0

    def flop_per_pixel(self, n_planes: int) -> float:
        """About: two flows of three warps on a pyramid, then two bilinear samples for each plane."""
        return 2 * 3 * 4 / 3 * 150.0 + 2 * 20.0 * n_planes

    def bytes_per_pixel(self, n_planes: int, itemsize: int) -> int:
        """Systems of two equations and the flows, in part in double precision. Measured: 142 at 256 px."""
        return 150 + 6 * n_planes


@dataclass(frozen=True, slots=True)
class FilterSizes:
    """A separable filter of one section: `halo_px` pixels of the source each side, `scale` pixels for one."""

    halo_px: Annotated[int, Field(ge=0, le=64)] = 0
    scale: Annotated[int, Field(ge=1, le=2)] = 1

    reach_sections = 0
    multiple_px = 1
    tile_px = 0
    ratio = 0

    @property
    def context_px(self) -> int:
        """The halo, in pixels of the output."""
        return self.halo_px * self.scale

    def flop_per_pixel(self, n_planes: int) -> float:
        """One multiplication and one addition for each pixel of the halo, along y and along x."""
        return 2.0 * 2 * (2 * self.halo_px + 1)

    def bytes_per_pixel(self, n_planes: int, itemsize: int) -> int:
        """The section in float32, and what is summed up."""
        return 24
