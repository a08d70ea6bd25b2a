"""What the pipeline asks of the sizes of any network, and the numbers that sizes are made of."""

from __future__ import annotations

from typing import Annotated, Protocol

from pydantic import ConfigDict, Field

Few = Annotated[int, Field(ge=0, le=64)]
Count = Annotated[int, Field(ge=1, le=64)]
Width = Annotated[int, Field(ge=1, le=2**16)]
Widths = Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)]
TilePx = Annotated[int, Field(ge=1, le=2**13)]
CHECKED = ConfigDict(extra="forbid", strict=True)


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
