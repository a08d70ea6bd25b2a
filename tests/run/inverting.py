"""A small job that renders nothing: it copies an array block by block and inverts it. Also as a program:

inverting.py FOLDER PART DEADLY      does PART; killed in place of reading its DEADLY-th block
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.records.events import Listener
from vemdiffuse_pipe.records.folder import records_of_job
from vemdiffuse_pipe.records.parts import parse_part
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.running.job import Arrays, Checksums, Loaded
from vemdiffuse_pipe.running.local.runner import LocalRunner
from vemdiffuse_pipe.running.runner import run_job
from vemdiffuse_pipe.running.stages import write_shards
from vemdiffuse_pipe.storage import create_sink, open_sink, open_source, parse_address
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.volume import Sink, Source


@dataclass
class InvertStages:
    """Open in one process."""

    source: Source
    sink: Sink
    shards: BlockGrid
    deadly: int
    n_read: int = 0

    def read(self, work: Work) -> Loaded:
        self.n_read += 1
        if self.n_read == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        voxels = self.source.read(work.output_box)
        return Loaded({"em": voxels}, bytes_read=voxels.nbytes)

    def compute(self, work: Work, loaded: Loaded) -> Arrays:
        return {"em": 255 - np.asarray(loaded.arrays["em"], np.uint8)}

    def write(self, work: Work, arrays: Arrays) -> Checksums:
        return write_shards(self.sink, self.shards, work.output_box, arrays)


@dataclass(frozen=True)
class InvertJob:
    """The job."""

    source: str
    output: Address
    shape: Zyx
    shard_shape: Zyx
    deadly: int = 0
    verb: str = "invert"
    title: str = "the same volume, inverted"
    digest: str = "5d41402abc4b2a76"
    device: str = "cpu"
    by_columns: bool = False
    finished: list[str] = field(default_factory=list, compare=False)

    @property
    def blocks(self) -> BlockGrid:
        return BlockGrid(self.shape, self.shard_shape)

    @property
    def shards(self) -> BlockGrid:
        return BlockGrid(self.shape, self.shard_shape)

    @property
    def records(self) -> Address:
        return records_of_job(self.output, "invert")

    def open(self, emit: Listener) -> InvertStages:
        return InvertStages(open_source(self.source), open_sink(str(self.output)), self.shards, self.deadly)

    def finish(self) -> None:
        self.finished.append("finished")


def invert_job(folder: Path, deadly: int = 0) -> InvertJob:
    """The job for `source.zarr` of a folder; its output exists."""
    url, output = str(folder / "source.zarr" / "em"), parse_address(folder / "inverted.zarr")
    spec = open_source(url).spec
    if not output.path.exists():
        create_sink(
            output.path,
            spec.frame,
            arrays=("em",),
            chunk_shape=(2, 16, 16),
            shard_shape=(2, 16, 16),
            attributes={},
            provenance=np.ones(spec.shape[0], np.uint8),
        )
    return InvertJob(url, output, spec.shape, (2, 16, 16), deadly)


def inverted(job: InvertJob) -> object:
    """The voxels of its output."""
    return open_sink(str(job.output)).read("em", Box.of_shape(job.shape))


if __name__ == "__main__":
    path, part, deadly = sys.argv[1:]
    run_job(invert_job(Path(path), int(deadly)), LocalRunner(parse_part(part, os.environ)))
