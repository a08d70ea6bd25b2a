"""One level of a pyramid, made from the level below: whole shards from 2 x 2 x 2 shards, one writer each."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.geometry.pyramid import finer_box, level_start
from vemdiffuse_pipe.output.levels import Method, level_digest, method_of
from vemdiffuse_pipe.records.events import Listener
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.running.job import Arrays, Checksums, Loaded
from vemdiffuse_pipe.running.levels.downsample import coarser
from vemdiffuse_pipe.running.levels.existence import Existence
from vemdiffuse_pipe.running.stages import shard_checksums
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.image_levels import ImageLevels, OpenLevel

VOXELS, EXISTS = "voxels", "exists"


@dataclass(frozen=True)
class LevelJob:
    """Makes `level` of `image`."""

    image: ImageLevels
    """The image; its level below is complete."""
    level: int
    """1 or more."""
    made_from: str
    """Digest of what is in level 0."""
    records: Address
    """Folder of receipts and events of this job."""
    existence: Existence = field(compare=False)
    """Which voxels exist."""

    verb = "downsample"
    device = "cpu"
    by_columns = False

    @property
    def method(self) -> Method:
        """How voxels are put together."""
        return method_of(self.image.name)

    @property
    def title(self) -> str:
        """The array, the level and its size."""
        z, y, x = self.shards.shape
        return f"level {self.level} of {self.image.name}: {z:,} x {y:,} x {x:,} voxels by {self.method}"

    @property
    def digest(self) -> str:
        """Of level 0, the array, the level and the arithmetic."""
        return level_digest(self.made_from, self.image.name, self.level)

    @property
    def shards(self) -> BlockGrid:
        """The level cut into shards."""
        return BlockGrid(self.image.level_frame(self.level).shape, self.image.level_shards(self.level))

    @property
    def blocks(self) -> BlockGrid:
        """A block is a shard: what it is made from is eight times as large."""
        return self.shards

    @property
    def shape_below(self) -> Zyx:
        """Voxels of the level below, zyx."""
        return self.image.level_frame(self.level - 1).shape

    def open(self, emit: Listener) -> LevelStages:
        """The level below and this one. Raises InputError or TransientError."""
        return LevelStages(self, self.image.open_level(self.level - 1), self.image.open_level(self.level))

    def finish(self) -> None:
        """Let the image name the level."""
        self.image.publish(self.level + 1)


@dataclass(frozen=True, slots=True)
class LevelStages:
    """The stages of a LevelJob in one process."""

    job: LevelJob
    """What is made."""
    below: OpenLevel
    """Where voxels are read."""
    made: OpenLevel
    """Where voxels are written."""

    def read(self, work: Work) -> Loaded:
        """The voxels of the level below that the block covers, and which of them exist."""
        below = self.job.level - 1
        box = finer_box(work.output_box, self.job.shape_below, level_start(self.job.image.start, below))
        if self.job.existence.is_complete:
            voxels = self.below.reader.read(box)
            return Loaded({VOXELS: voxels}, voxels.nbytes)
        exists = self.job.existence.of(below, box)
        return Loaded({VOXELS: self._read_existing(box, exists), EXISTS: exists}, int(exists.sum()))

    def compute(self, work: Work, loaded: Loaded) -> dict[str, NDArray[np.generic]]:
        """The voxels of the block."""
        start = level_start(self.job.image.start, self.job.level - 1)
        first = (a * 2 + b for a, b in zip(work.output_box.start, (s - s % 2 for s in start), strict=True))
        begins = [max(a, b) for a, b in zip(first, start, strict=True)]
        exists = loaded.arrays.get(EXISTS)
        z, y, x = begins
        flags = None if exists is None else exists.astype(np.bool_)
        return {VOXELS: coarser(loaded.arrays[VOXELS], self.job.method, flags, (z, y, x))}

    def write(self, work: Work, arrays: Arrays) -> Checksums:
        """Write the shard."""
        self.made.writer.write(work.output_box, arrays[VOXELS])
        return {self.job.image.name: shard_checksums(self.job.shards, work.output_box, arrays[VOXELS])}

    def _read_existing(self, box: Box, exists: NDArray[np.bool_]) -> NDArray[np.generic]:
        """`box` of the level below, shard by shard; a shard of which nothing exists is not there, and 0."""
        reader = self.below.reader
        voxels = np.zeros(box.shape, np.dtype(self.job.image.dtype))
        shards = BlockGrid(self.job.shape_below, self.job.image.level_shards(self.job.level - 1))
        for shard in shards.touching(box):
            part = shards.box(shard).intersect(box)
            where = part.relative_to(box.start).slices
            if exists[where].any():
                voxels[where] = reader.read(part)
        return voxels
