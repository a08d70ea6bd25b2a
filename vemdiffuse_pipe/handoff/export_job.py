"""One array of an output, copied into an image of another format: every shard is read back and compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import CorruptDataError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.handoff.tiff_file import TiffFile
from vemdiffuse_pipe.records.events import Listener
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.running.job import Arrays, Checksums, Loaded
from vemdiffuse_pipe.running.levels.existence import Existence
from vemdiffuse_pipe.running.stages import shard_checksums
from vemdiffuse_pipe.storage import StoredSink, open_sink
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.image_levels import ImageLevels, OpenLevel

VOXELS = "voxels"
TIFF_BLOCK: Zyx = (16, 1024, 1024)
BLOCK_VOXELS = 1 << 24  # about 16 MB of grey levels are copied at once
MAX_JPEG_LOSS = 64  # grey levels


class Destination(Protocol):
    """Where an array is copied to: a level 0 that other programs read. Small when pickled."""

    @property
    def label(self) -> str:
        """Its format and address, for messages."""
        ...

    @property
    def dtype(self) -> str:
        """Numpy's name of its type."""
        ...

    @property
    def max_loss(self) -> int:
        """By how much a voxel may come back otherwise; 0 where it is lossless."""
        ...

    def shards(self, shape: Zyx) -> BlockGrid:
        """A volume of that shape, cut into units of writing."""
        ...

    def open(self) -> OpenLevel:
        """The level, for writing and reading. Raises OutputError, SourceError or TransientError."""
        ...

    def finish(self) -> None:
        """Let other programs see it."""
        ...


@dataclass(frozen=True, slots=True)
class FirstLevel:
    """Level 0 of an image of several levels."""

    image: ImageLevels
    """The image."""

    @property
    def label(self) -> str:
        """Its format and address."""
        return f"{self.image.output_format} at {self.image.address}"

    @property
    def dtype(self) -> str:
        """The type of the image."""
        return self.image.dtype

    @property
    def max_loss(self) -> int:
        """Of jpeg, more than it loses: what is further off is damaged."""
        return MAX_JPEG_LOSS if self.image.encoding == "jpeg" else 0

    def shards(self, shape: Zyx) -> BlockGrid:
        """The shards of level 0."""
        return BlockGrid(shape, self.image.level_shards(0))

    def open(self) -> OpenLevel:
        """Level 0."""
        return self.image.open_level(0)

    def finish(self) -> None:
        """Let the image name its first level."""
        self.image.publish(1)


@dataclass(frozen=True, slots=True)
class TiffDestination:
    """A TIFF, or a folder of them."""

    file: TiffFile
    """The file."""
    dtype = "uint8"
    max_loss = 0

    @property
    def label(self) -> str:
        """Its address."""
        return f"TIFF at {self.file.path}"

    def shards(self, shape: Zyx) -> BlockGrid:
        """Any box can be written; these are of a size worth a receipt."""
        return BlockGrid(shape, TIFF_BLOCK)

    def open(self) -> OpenLevel:
        """The file, which is laid out already."""
        return OpenLevel(self.file, self.file)

    def finish(self) -> None:
        """Nothing is left to do."""


@dataclass(frozen=True)
class ExportJob:
    """Copies `box` of the array `array` to `destination`."""

    source: str
    """Address of the output that is copied."""
    array: str
    """Which array of it."""
    box: Box
    """Which part, voxels of the output."""
    destination: Destination
    """Where it goes."""
    digest: str
    """Of what is exported and how."""
    records: Address
    """Folder of receipts and events of this job."""
    existence: Existence = field(compare=False)
    """Which voxels exist."""

    verb = "copy"
    device = "cpu"
    by_columns = False

    @property
    def title(self) -> str:
        """The array, its size and its new format."""
        z, y, x = self.box.shape
        return f"{self.array}, {z:,} x {y:,} x {x:,} voxels, as {self.destination.label}"

    @property
    def shards(self) -> BlockGrid:
        """The destination cut into units of writing."""
        return self.destination.shards(self.box.shape)

    @property
    def blocks(self) -> BlockGrid:
        """Whole shards, as many beside each other as make a block worth a receipt."""
        return BlockGrid(self.box.shape, _several(self.shards))

    def open(self, emit: Listener) -> ExportStages:
        """The output and the destination. Raises InputError or TransientError."""
        return ExportStages(self, open_sink(self.source), self.destination.open())

    def finish(self) -> None:
        """Let other programs see it."""
        self.destination.finish()


@dataclass(frozen=True, slots=True)
class ExportStages:
    """The stages of an ExportJob in one process."""

    job: ExportJob
    """What is copied."""
    sink: StoredSink
    """Where voxels are read."""
    made: OpenLevel
    """Where voxels are written."""

    def read(self, work: Work) -> Loaded:
        """The voxels of the block; those that do not exist are 0."""
        box = work.output_box.shift(self.job.box.start)
        if self.job.existence.is_complete:
            voxels = self.sink.read(self.job.array, box)
            return Loaded({VOXELS: voxels}, voxels.nbytes)
        exists, voxels = self.job.existence.of(0, work.output_box), np.zeros(box.shape, np.uint8)
        shards = BlockGrid(self.sink.spec.shape, self.sink.spec.shard_shape)
        for shard in shards.touching(box):
            part = shards.box(shard).intersect(box)
            where = part.relative_to(box.start).slices
            if exists[where].any():
                voxels[where] = self.sink.read(self.job.array, part)
        return Loaded({VOXELS: voxels}, int(exists.sum()))

    def compute(self, work: Work, loaded: Loaded) -> dict[str, NDArray[np.generic]]:
        """The same voxels, in the type of the destination."""
        return {VOXELS: loaded.arrays[VOXELS].astype(self.job.destination.dtype, copy=False)}

    def write(self, work: Work, arrays: Arrays) -> Checksums:
        """Write the block and read it back. Raises CorruptDataError where it comes back otherwise."""
        voxels = arrays[VOXELS]
        self.made.writer.write(work.output_box, voxels)
        stored = self.made.reader.read(work.output_box)
        loss = int(np.abs(stored.astype(np.int64) - voxels.astype(np.int64)).max())
        if loss > self.job.destination.max_loss:
            raise CorruptDataError(
                f"{work.output_box} of {self.job.destination.label} came back otherwise than it was "
                f"written, by up to {loss}; look at the disk or the store, and run again"
            )
        return {self.job.array: shard_checksums(self.job.shards, work.output_box, stored)}


def _several(shards: BlockGrid) -> Zyx:
    """The shape of a block: shards side by side along x, then y, then z, up to BLOCK_VOXELS."""
    z, y, x = shards.block_shape
    nz, ny, nx = shards.counts
    room = max(1, BLOCK_VOXELS // (z * y * x))
    kx = min(nx, max(1, min(room, 512 // x)))
    ky = min(ny, max(1, min(room // kx, 512 // y)))
    kz = min(nz, max(1, min(room // (kx * ky), 64 // z)))
    return z * kz, y * ky, x * kx
