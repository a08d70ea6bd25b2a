"""Crops by number, out of the slabs that are in memory: what batches of gaps and of pairs share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vemdiffuse_pipe.errors import DataError
from vemdiffuse_pipe.training.pool import HeldSlab, SlabPool
from vemdiffuse_pipe.training.slabs import SAMPLES, generator
from vemdiffuse_pipe.volume import Voxels

TRIES = 64  # crops in a row that may be black or flat


@dataclass(frozen=True, slots=True)
class Crop:
    """A piece of a slab, views. `given`: (sections, y, x), what a network sees; `truth`: what it learns."""

    given: Voxels
    truth: Voxels


class SlabCrops:
    """Crop number i is a function of the schedule and of i. Not to be used by two threads at once.

    `least_contrast`: a crop whose given sections vary less, in deviations of the volume, is replaced; of a
    pair neither side may.
    """

    def __init__(self, pool: SlabPool, least_contrast: float) -> None:
        self.pool = pool
        self.seed = pool.schedule.seed
        self.cut = pool.schedule.cut
        self.least_contrast = least_contrast
        self.bytes_used = 0
        self.n_rejected = 0

    @property
    def n_bytes(self) -> tuple[int, int]:
        """(decoded, used) so far."""
        return self.pool.bytes_read, self.bytes_used

    def close(self) -> None:
        """End the reader of its pool."""
        self.pool.close()

    def draw(
        self, number: int, cut_out: Callable[[np.random.Generator, HeldSlab], Crop]
    ) -> tuple[np.random.Generator, Crop, tuple[float, float]]:
        """Crop `number` since the beginning, its random numbers from here on, and its volume's contrast.

        Raises DataError where the volumes are black or flat wherever they are looked at, and what reading
        raises.
        """
        window = self.pool.schedule.window(number)
        self.pool.move_to(window)
        rng = generator(self.seed, self.cut.number, SAMPLES, number)
        for _ in range(TRIES):
            held = self.pool.get(int(rng.integers(window.start, window.stop)))
            crop = cut_out(rng, held)
            contrast = self.pool.schedule.volumes[held.slab.volume].contrast
            is_pair, least = held.raw is not None, self.least_contrast * contrast[1]
            if has_contrast(crop.given, least) and (not is_pair or has_contrast(crop.truth, least)):
                self.bytes_used += crop.truth.size + is_pair * crop.given.size
                return rng, crop, contrast
            self.n_rejected += 1
        raise DataError(
            f"{TRIES} crops in a row are black or flat, the last in {held.slab.box} of "
            f"{self.pool.schedule.volumes[held.slab.volume].source.spec.url}; choose a region with tissue, "
            "or a smaller data.least_contrast"
        )


def has_contrast(sections: Voxels, least_deviation: float) -> bool:
    """True where all sections vary, and no more than half of them is black or white."""
    padding = np.count_nonzero((sections == 0) | (sections == 255))
    return bool(2 * padding <= sections.size) and all(float(s.std()) >= least_deviation for s in sections)
