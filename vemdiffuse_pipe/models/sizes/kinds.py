"""The kinds of models, and what a network's sizes say about it: context, tiles, operations, memory.

    kind        network                     draws     tiles               ratio
    filter      none: of one section        no        exact               none: it fills no gap
    lean        LeanNetwork                 samples   exact               any
    regression  LeanNetwork, one pass       no        exact               any
    udim        UdimNetwork, two sections   samples   one size, inexact   the one it was trained at
    cddpm       UdimNetwork, interpolation  samples   one size, inexact   any
    a2i3dem     AxialNetwork                no        exact               any
    sru3d       Sru3dNetwork                no        one size, exact     the one it was trained at
    rcan        Rcan, of one section        no        one size, inexact   none: it fills no gap
    pssr        Pssr, of one section        no        exact               none: it fills no gap

Nothing here needs torch: plans are made from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Protocol

from pydantic import ConfigDict, Field

from vemdiffuse_pipe.models.sizes.parameter_free import FilterSizes, InterpolationSizes
from vemdiffuse_pipe.models.sizes.plain import PssrConfig, RcanConfig

Count = Annotated[int, Field(ge=1, le=64)]
Width = Annotated[int, Field(ge=1, le=2**16)]
Widths = Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)]
TilePx = Annotated[int, Field(ge=1, le=2**13)]
_CHECKED = ConfigDict(extra="forbid", strict=True)


class Sizes(Protocol):
    """What the pipeline plans with, from the sizes of a network.

    `context_px`: how far, in the plane, an input can lie from an output that it changes. `multiple_px`:
    tiles are multiples of this. `tile_px`: the only size of tile; 0 where any will do. `reach_sections`:
    sections beyond the gap's own two, each side. `ratio`: the only ratio; 0 where any will do.
    """

    @property
    def context_px(self) -> int: ...  # noqa: D102
    @property
    def multiple_px(self) -> int: ...  # noqa: D102
    @property
    def tile_px(self) -> int: ...  # noqa: D102
    @property
    def reach_sections(self) -> int: ...  # noqa: D102
    @property
    def ratio(self) -> int: ...  # noqa: D102

    def flop_per_pixel(self, n_planes: int) -> float:
        """Floating-point operations of one evaluation of a gap, per (y, x) pixel."""
        ...

    def bytes_per_pixel(self, n_planes: int, itemsize: int) -> int:
        """Upper bound of the memory of one evaluation of a gap, per (y, x) pixel of a tile."""
        ...


@dataclass(frozen=True, slots=True)
class LeanConfig:
    """Sizes of the lean network: channels at 1/2, 1/4, ... of the resolution; residual blocks a level."""

    channels: Widths = (64, 128, 192)
    n_blocks: Count = 2
    n_basis: Width = 12
    n_embedding: Width = 128

    __pydantic_config__ = _CHECKED
    tile_px = 0
    reach_sections = 0
    ratio = 0

    @property
    def context_px(self) -> int:
        """How far, in pixels, an input can lie from an output that it changes."""
        n_levels = len(self.channels)
        reach = 4  # the kernels in and out, at half resolution
        for level in range(n_levels):
            reach += (2 << level) * 2 * self.n_blocks * (1 if level == n_levels - 1 else 2)
        return reach + (1 << n_levels) - 1

    @property
    def multiple_px(self) -> int:
        """Tiles must be a multiple of this, in pixels, and lie on multiples of it."""
        return 1 << len(self.channels)

    def flop_per_pixel(self, n_planes: int) -> float:
        """Its convolutions."""
        total = 2.0 * 9 * self.channels[0] * (2 + 2 * n_planes)
        for level, c in enumerate(self.channels):
            n_stages = 1 if level == len(self.channels) - 1 else 2
            total += n_stages * self.n_blocks * 2 * 18 * c * c / 4.0 ** (level + 1)
        for level, (a, b) in enumerate(pairwise(self.channels)):
            total += 2 * (2 * 4 * a * b) / 4.0 ** (level + 2)
        return total

    def bytes_per_pixel(self, n_planes: int, itemsize: int) -> int:
        """Measured: 950 to 1,130 for the default in float32."""
        return 16 * itemsize * self.channels[0] // 4 + 32 * n_planes


@dataclass(frozen=True, slots=True)
class UdimBlock:
    """A residual block of UDiM. `level`: of its output; `resize`: 1 up, -1 down, 0 neither."""

    c_in: int
    c_out: int
    level: int
    resize: int = 0

    @property
    def flop(self) -> float:
        """Operations per pixel of the plane."""
        skip = 0 if self.c_in == self.c_out else self.c_in * self.c_out
        weights = 9 * self.c_in * self.c_out + 9 * self.c_out**2 + skip
        return 2.0 * weights / 4.0**self.level


@dataclass(frozen=True, slots=True)
class UdimConfig:
    """Sizes of UDiM. The defaults are the published ones: 16,615,873 parameters.

    `n_conditions`: 2, the sections; 1, their interpolation. `ratio`: r, where it knows the r - 1 planes by
    their numbers; else 0. `has_difficulty`: a second output, the logarithm of a variance.
    """

    inner: Width = 32
    multipliers: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)] = (1, 2, 4, 8)
    n_blocks: Count = 2
    n_groups: Width = 32
    head: Width = 32
    n_conditions: Annotated[int, Field(ge=1, le=2)] = 2
    ratio: Annotated[int, Field(ge=0, le=1024)] = 6
    has_difficulty: bool = False
    tile_px: TilePx = 256

    __pydantic_config__ = _CHECKED
    reach_sections = 0

    def __post_init__(self) -> None:
        if self.inner % self.n_groups or self.widths[-1] % self.head or self.ratio == 1:
            raise ValueError(
                f"{self.inner} channels in {self.n_groups} groups, {self.widths[-1]} in heads of "
                f"{self.head}, ratio {self.ratio}: groups and heads must be whole, and the ratio 2 or more"
            )

    @property
    def context_px(self) -> int:
        """The whole tile: normalisation and attention look everywhere."""
        return self.tile_px

    @property
    def multiple_px(self) -> int:
        """Halved once a level."""
        return 1 << (len(self.multipliers) - 1)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.inner * m for m in self.multipliers)

    @property
    def n_embedding(self) -> int:
        """Length of the embedding of the noise level; as much again for the layer."""
        return 4 * self.inner

    def down(self) -> Iterator[UdimBlock]:
        """Blocks on the way down, in order; the output of each is kept for the way up."""
        channels = self.inner
        for level, width in enumerate(self.widths):
            for _ in range(self.n_blocks):
                yield UdimBlock(channels, width, level)
                channels = width
            if level < len(self.widths) - 1:
                yield UdimBlock(width, width, level + 1, -1)

    def up(self) -> Iterator[UdimBlock]:
        """Blocks on the way up; one that does not resize is given what was kept beside what came."""
        kept = [self.inner, *(block.c_out for block in self.down())]
        channels = self.widths[-1]
        for level in reversed(range(len(self.widths))):
            width = self.widths[level]
            for _ in range(self.n_blocks + 1):
                yield UdimBlock(channels + kept.pop(), width, level)
                channels = width
            if level:
                yield UdimBlock(width, width, level - 1, 1)

    def flop_per_pixel(self, n_planes: int) -> float:
        """Convolutions and attention; every plane is evaluated by itself."""
        deepest, width = len(self.widths) - 1, self.widths[-1]
        middle = UdimBlock(width, width, deepest).flop
        n_tokens = (self.tile_px >> deepest) ** 2
        attention = (2.0 * 4 * width**2 + 4.0 * n_tokens * width) / 4.0**deepest
        n_out = 2 if self.has_difficulty else 1
        ends = 2.0 * 9 * self.inner * (self.n_conditions + 1) + 2.0 * 9 * self.widths[0] * n_out
        blocks = sum(block.flop for block in (*self.down(), *self.up()))
        return n_planes * (blocks + 2 * middle + attention + ends)

    def bytes_per_pixel(self, n_planes: int, itemsize: int) -> int:
        """What is kept for the way up, the widest block, and attention, of the planes evaluated at once."""
        kept = self.inner + sum(block.c_out / 4.0**block.level for block in self.down())
        widest = max((2 * block.c_in + 3 * block.c_out) / 4.0**block.level for block in self.up())
        n_heads = max(1, self.widths[-1] // self.head)
        attention = 2 * n_heads * (self.tile_px >> (len(self.widths) - 1)) ** 2 / self.multiple_px**2
        share = (
            0.44 + 0.165 * itemsize
        )  # measured at 256 px: 2,990 in float32, 2,030 in bfloat16, for 2 planes
        return int(4 * share * (kept + widest + attention)) + 32 * n_planes


@dataclass(frozen=True, slots=True)
class AxialConfig:
    """Sizes of the window-attention network: channels of each level, blocks a stage, window, heads.

    `reach`: sections beyond the gap's own two that its axial planes hold, each side. `has_both_axes`: xz
    and yz planes are restored and averaged, else xz alone.
    """

    channels: Widths = (32, 64, 128)
    n_blocks: Count = 2
    window: Count = 8
    head: Width = 16
    reach: Annotated[int, Field(ge=0, le=8)] = 1
    has_both_axes: bool = False

    __pydantic_config__ = _CHECKED
    tile_px = 0
    ratio = 0

    def __post_init__(self) -> None:
        if any(c % self.head for c in self.channels):
            raise ValueError(f"channels {self.channels} are not made of heads of {self.head}")

    @property
    def reach_sections(self) -> int:
        """Sections beyond the gap's own two."""
        return self.reach

    @property
    def multiple_px(self) -> int:
        """A window of the deepest level: windows then lie at the same places of the volume in every tile."""
        return self.window << (len(self.channels) - 1)

    @property
    def context_px(self) -> int:
        """A window and a pixel for every block, with the convolutions at both ends."""
        deepest = len(self.channels) - 1
        stages = sum((1 if level == deepest else 2) << level for level in range(deepest + 1))
        return 2 + self.n_blocks * stages * self.window + (1 << deepest) - 1

    def n_rows(self, n_planes: int) -> int:
        """Rows of an axial plane along z: the planes of every gap that is looked at, to whole windows."""
        rows = (1 + 2 * self.reach) * (n_planes + 1) + 1
        return -(-rows // self.multiple_px) * self.multiple_px

    def flop_per_pixel(self, n_planes: int) -> float:
        """Attention and the layers of every block, over the rows of an axial plane."""
        deepest, total = len(self.channels) - 1, 2.0 * 9 * 2 * self.channels[0]
        for level, c in enumerate(self.channels):
            attention = 2.0 * 4 * c * c + 4.0 * self.window**2 * c
            gated = 2.0 * 6 * c * c + 2.0 * 9 * 4 * c
            total += (1 if level == deepest else 2) * self.n_blocks * (attention + gated) / 4.0**level
        for level, (a, b) in enumerate(pairwise(self.channels)):
            total += 2 * (2.0 * 4 * a * b) / 4.0 ** (level + 1)
        return total * self.n_rows(n_planes) * (2 if self.has_both_axes else 1)

    def bytes_per_pixel(self, n_planes: int, itemsize: int) -> int:
        """All rows a few times in float32, and the activations of AXIAL_BATCH planes of a tile of 128 px.

        Measured for the default at r = 3: 2,610 at 192 px, 4,840 to 5,260 at 96 px, in either arithmetic.
        """
        return self.n_rows(n_planes) * (16 + 110 * self.channels[0] * AXIAL_BATCH // 128)


AXIAL_BATCH = 4  # axial planes in one call of the network


@dataclass(frozen=True, slots=True)
class Sru3dConfig:
    """Sizes of the three-dimensional network that upsamples along z: channels of each level, ratio.

    `reach`: sections beyond the gap's own two that it is given, each side.
    """

    channels: Widths = (32, 64, 128)
    n_convolutions: Count = 3
    ratio: Annotated[int, Field(ge=2, le=1024)] = 6
    reach: Annotated[int, Field(ge=0, le=8)] = 1
    tile_px: TilePx = 128

    __pydantic_config__ = _CHECKED

    @property
    def reach_sections(self) -> int:
        """Sections beyond the gap's own two."""
        return self.reach

    @property
    def multiple_px(self) -> int:
        """Halved once a level."""
        return 1 << (len(self.channels) - 1)

    @property
    def context_px(self) -> int:
        """A pixel for every convolution, at the level's resolution."""
        deepest = len(self.channels) - 1
        stages = sum((1 if level == deepest else 2) << level for level in range(deepest + 1))
        return 1 + self.n_convolutions * stages + (1 << deepest) - 1

    def flop_per_pixel(self, n_planes: int) -> float:
        """Convolutions: on the way down for every section, on the way up for every plane."""
        n_sections = 2 + 2 * self.reach
        n_rows, deepest = n_sections * self.ratio, len(self.channels) - 1
        total, before = 2.0 * 27 * self.channels[0] * n_rows, 1
        for level, c in enumerate(self.channels):
            area = 4.0**level
            down = 27 * c * (before + (self.n_convolutions - 1) * c)
            up = 0 if level == deepest else 27 * c * (2 * c + (self.n_convolutions - 1) * c)
            total += 2 * (n_sections * down + n_rows * up + n_rows * c * c) / area
            before = c
        for level, (a, b) in enumerate(pairwise(self.channels)):
            total += 2.0 * n_rows * a * b / 4.0**level
        return total

    def bytes_per_pixel(self, n_planes: int, itemsize: int) -> int:
        """The finest level on the way up. Measured at r = 3: 15,680 in float32, 6,070 in bfloat16."""
        return 11 * itemsize * self.channels[0] * (2 + 2 * self.reach) * self.ratio


@dataclass(frozen=True, slots=True)
class Kind:
    """What holds for every model of a kind. `samplers`: what can drive it; the first is the usual one.

    `needs_contrast`: sees standardised grey levels, so the volume's mean and deviation must be known.
    `fills_gaps`: False for those that only restore sections.
    """

    sizes: type[Sizes]
    samplers: tuple[str, ...] = ()
    is_tile_exact: bool = True
    needs_contrast: bool = True
    needs_weights: bool = True
    fills_gaps: bool = True

    @property
    def is_stochastic(self) -> bool:
        """True where samples are drawn."""
        return bool(self.samplers)


ODE_SAMPLERS = ("dpmpp-2m", "heun")
SAMPLERS = (*ODE_SAMPLERS, "ancestral", "ancestral-rescaled")
USUAL_STEPS = {"dpmpp-2m": 10, "heun": 35, "ancestral": 1000, "ancestral-rescaled": 200}

KINDS: dict[str, Kind] = {
    "interpolation": Kind(InterpolationSizes, needs_contrast=False, needs_weights=False),
    "filter": Kind(FilterSizes, needs_contrast=False, needs_weights=False, fills_gaps=False),
    "lean": Kind(LeanConfig, ODE_SAMPLERS),
    "regression": Kind(LeanConfig),
    "udim": Kind(UdimConfig, SAMPLERS, is_tile_exact=False, needs_contrast=False),
    "cddpm": Kind(UdimConfig, SAMPLERS, is_tile_exact=False, needs_contrast=False),
    "a2i3dem": Kind(AxialConfig),
    "sru3d": Kind(Sru3dConfig),
    "rcan": Kind(RcanConfig, is_tile_exact=False, fills_gaps=False),
    "pssr": Kind(PssrConfig, fills_gaps=False),
}
