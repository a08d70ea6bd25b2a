"""What the sizes of the estimator and of the sampler say: context, tiles, operations, memory. Without torch."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class GapNetworkConfig:
    """Sizes of both networks: channels at 1/2, 1/4, ... of the resolution; residual blocks a level.

    `reach`: sections beyond the gap's own two, each side.
    """

    channels: tuple[int, ...] = (48, 96, 192)
    n_blocks: int = 2
    n_basis: int = 16
    n_embedding: int = 128
    reach: int = 1

    @property
    def n_sections(self) -> int:
        """Sections that the network is given."""
        return 2 + 2 * self.reach
