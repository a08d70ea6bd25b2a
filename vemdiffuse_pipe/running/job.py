"""What a runner needs to know of the work: blocks in, shards and receipts out, whatever is computed.

A runner knows neither rendering nor pyramids. It divides the blocks of a job, retries, resumes, draws parts,
starts clusters, writes receipts, heartbeats and events. A job says what a block is:

    @dataclass(frozen=True)
    class InvertJob:                                  # pickled to worker processes: keep it small
        source: str
        output: Address
        verb, digest, device, by_columns, title = "invert", "5d41402abc4b2a76", "cpu", False, "inverted"
        ... blocks, shards (BlockGrid), records (records_of_job(output, "invert"))

        def open(self, emit):                         # once in each process: files, models, caches
            return InvertStages(open_source(self.source), open_sink(self.output), self.shards)

        def finish(self):                             # when nothing is missing any more
            pass

    class InvertStages:
        def read(self, work):                         # I/O; transient errors repeat only this stage
            voxels = self.source.read(work.output_box)
            return Loaded({"em": voxels}, bytes_read=voxels.nbytes)

        def compute(self, work, loaded):              # holds the GPU
            return {"em": 255 - loaded.arrays["em"]}

        def write(self, work, arrays):                # I/O; durable when it returns
            return write_shards(self.sink, self.shards, work.output_box, arrays)

    outcome = run_job(InvertJob(..), LocalRunner(Part(1, 4)), listener=print)

The result of a block must be a pure function of the job and the block: blocks are retried, done twice when a
worker is slow, and done again after a kill.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.config import Json
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.records.events import Listener
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.storage.address import Address

Arrays: TypeAlias = Mapping[str, NDArray[np.generic]]
Checksums: TypeAlias = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a block is computed from."""

    arrays: Arrays
    """By name; shapes and dtypes are the job's own."""
    bytes_read: int = 0
    """Decoded bytes, for the receipt."""
    filled_sections: tuple[int, ...] = ()
    """Sections of the source of which some voxels do not exist, ascending."""
    n_voxels_filled: int = 0
    """How many voxels these are."""
    notes: dict[str, Json] = field(default_factory=dict)
    """What computing has to say, for the receipt: `compute` adds to it."""


class BlockStages(Protocol):
    """A job that is open in one process.

    Its stages run in different threads, each in one at a time or more.
    """

    def read(self, work: Work) -> Loaded:
        """What the block needs. Raises DataError, TransientError."""
        ...

    def compute(self, work: Work, loaded: Loaded) -> Arrays:
        """The arrays of the block, by name. Pure: the same for the same work."""
        ...

    def write(self, work: Work, arrays: Arrays) -> Checksums:
        """Write whole shards, durably; checksums by array, one a shard, in the order of `shards.touching`.

        Raises StorageFullError, OutputError, TransientError.
        """
        ...


class BlockJob(Protocol):
    """Work on an output that is divided into blocks. Immutable, and small when pickled."""

    @property
    def title(self) -> str:
        """What is made, in one line: the first line of the progress display."""
        ...

    @property
    def verb(self) -> str:
        """What computing a block is called in receipts and dashboards: 'render'."""
        ...

    @property
    def digest(self) -> str:
        """16 hexadecimal digits for all that changes a voxel; receipts of another digest are refused."""
        ...

    @property
    def blocks(self) -> BlockGrid:
        """The output cut into blocks, units of work: whole shards each. The shape may change between runs."""
        ...

    @property
    def shards(self) -> BlockGrid:
        """The output cut into shards, units of writing; they never change."""
        ...

    @property
    def by_columns(self) -> bool:
        """True where blocks are best taken along z first; the order changes no voxel."""
        ...

    @property
    def records(self) -> Address:
        """The folder of receipts, failures, heartbeats and events: see `records.folder`."""
        ...

    @property
    def device(self) -> str:
        """'cpu', 'cuda' or 'cuda:1'."""
        ...

    def open(self, emit: Listener) -> BlockStages:
        """The stages of this process. Called once in each. `emit`: for events inside a block.

        Raises InputError, TransientError.
        """
        ...

    def finish(self) -> None:
        """Write what depends on all blocks. Called where nothing is missing, perhaps by several processes."""
        ...
