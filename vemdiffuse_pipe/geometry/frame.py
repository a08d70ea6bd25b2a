"""Where voxels lie in space, in exact nanometres.

        corner_nm                         centre of voxel 0 = corner + voxel / 2
            |<- voxel_size_nm ->|
            +-------------------+-------------------+----
            |     voxel 0       |     voxel 1       |  ...
            +-------------------+-------------------+----

Refining z by r keeps the centre of section 0 where it was, so the corner moves up by dz/2 - dz/(2r):

    sections   +---------------0---------------+---------------1--------------- ...
    planes                +----0----+----1----+----2----+----3----+              (r = 3)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.geometry.box import Box, Zyx

Nm = tuple[Fraction, Fraction, Fraction]


def exact(value: Fraction | float | int | str) -> Fraction:
    """The number as it is written in decimals: 4.3 is 43/10. Raises SourceError unless it is finite."""
    try:
        return Fraction(str(value)) if isinstance(value, float) else Fraction(value)
    except (ValueError, ZeroDivisionError, TypeError, OverflowError):
        raise SourceError(f"{value!r} is not a length; a finite number of nanometres is needed") from None


def exact_nm(values: Sequence[Fraction | float | int | str]) -> Nm:
    """Three lengths, zyx, in exact nanometres. Raises SourceError unless there are three finite numbers."""
    if len(values) != 3:
        raise SourceError(f"found {len(values)} lengths; three are needed, in the order z y x, in nanometres")
    z, y, x = (exact(v) for v in values)
    return z, y, x


@dataclass(frozen=True, slots=True)
class Frame:
    """A grid of voxels in space: `shape` voxels, zyx; sizes and corner in nm, exact."""

    shape: Zyx
    voxel_size_nm: Nm
    corner_nm: Nm = (Fraction(0), Fraction(0), Fraction(0))

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise SourceError(f"shape {self.shape} holds no voxel")
        if min(self.voxel_size_nm) <= 0:
            raise SourceError(f"voxel size {show_nm(self.voxel_size_nm)} nm; it must be larger than 0")

    @property
    def box(self) -> Box:
        """All voxels of the frame."""
        return Box.of_shape(self.shape)

    @property
    def centre_nm(self) -> Nm:
        """Centre of the first voxel: what OME-Zarr calls the translation."""
        z, y, x = (c + s / 2 for c, s in zip(self.corner_nm, self.voxel_size_nm, strict=True))
        return z, y, x

    @classmethod
    def from_centre(cls, shape: Zyx, voxel_size_nm: Nm, centre_nm: Nm) -> Frame:
        """The frame whose first voxel is centred at `centre_nm`."""
        z, y, x = (c - s / 2 for c, s in zip(centre_nm, voxel_size_nm, strict=True))
        return cls(shape, voxel_size_nm, (z, y, x))

    def refined_z(self, r: int | Fraction) -> Frame:
        """The frame of the planes: (M - 1) * r + 1 of them, the last one whole; section 0 stays in place."""
        size = (self.voxel_size_nm[0] / r, *self.voxel_size_nm[1:])
        n_planes = floor((self.shape[0] - 1) * r) + 1
        return Frame.from_centre((n_planes, *self.shape[1:]), size, self.centre_nm)

    def refined_yx(self, r: int) -> Frame:
        """The frame with each pixel cut into r x r: the corner stays where it was, first centres move."""
        z, y, x = self.shape
        dz, dy, dx = self.voxel_size_nm
        return Frame((z, y * r, x * r), (dz, dy / r, dx / r), self.corner_nm)

    def cropped(self, box: Box) -> Frame:
        """The frame of a part of this one."""
        z, y, x = (c + s * a for c, s, a in zip(self.corner_nm, self.voxel_size_nm, box.start, strict=True))
        return Frame(box.shape, self.voxel_size_nm, (z, y, x))


def show_nm(lengths: Nm) -> str:
    """'45 x 4.3 x 4.3', zyx."""
    return " x ".join(f"{float(v):.6g}" for v in lengths)
