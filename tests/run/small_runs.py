"""Small runs on disk: a source that encodes positions, a run file, and what came out."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from scipy.ndimage import map_coordinates

from vemdiffuse_pipe import config
from vemdiffuse_pipe.config import RunFile
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.records.folder import RECORDS
from vemdiffuse_pipe.records.receipts import FOLDER
from vemdiffuse_pipe.storage import create_sink, open_sink
from vemdiffuse_pipe.testing import VOXEL_SIZE_NM, position_coded
from vemdiffuse_pipe.volume import Voxels

SHAPE = (7, 37, 53)  # at r = 5: 31 planes
SHARD = (8, 16, 16)  # 4 x 3 x 4 shards
N_SHARDS = 48
BLOCK = (8, 16, 32)  # 24 blocks


def write_source(folder: Path, voxels: Voxels) -> str:
    """Store `voxels` as OME-Zarr and return where."""
    z, y, x = voxels.shape
    frame = Frame((z, y, x), VOXEL_SIZE_NM)
    sink = create_sink(
        folder / "source.zarr",
        frame,
        arrays=("em",),
        chunk_shape=(z, y, x),
        shard_shape=(z, y, x),
        attributes={},
        provenance=np.ones(z, np.uint8),
    )
    sink.write("em", frame.box, voxels)
    return str(folder / "source.zarr" / "em")


def small_run(folder: Path, shape: Zyx = SHAPE, **tables: dict[str, object]) -> RunFile:
    """A run file for a small linear run, its source on disk. `tables` add keys to its tables."""
    url = str(folder / "source.zarr" / "em")
    if not Path(url).exists():
        write_source(folder, position_coded(shape))
    given: dict[str, dict[str, object]] = {
        "source": {"url": url},
        "output": {"url": str(folder / "out.zarr"), "chunk_shape": SHARD, "shard_shape": SHARD},
        "model": {"name": "linear"},
        "run": {"block_shape": BLOCK},
    }
    return config.parse(
        {name: {**given.get(name, {}), **tables.get(name, {})} for name in {**given, **tables}}
    )


def stored(run_file: RunFile, array: str = "em") -> Voxels:
    """All voxels of an array of the output."""
    sink = open_sink(run_file.output.url)
    return sink.read(array, Box.of_shape(sink.spec.shape))


def stored_sha256(run_file: RunFile) -> str:
    """sha256 of the decoded voxels of every array."""
    hasher = hashlib.sha256()
    for array in open_sink(run_file.output.url).arrays:
        hasher.update(stored(run_file, array).tobytes())
    return hasher.hexdigest()


def interpolated(sections: Voxels, ratio: int) -> Voxels:
    """scipy's linear interpolation of the whole volume at once, rounded as the pipeline rounds."""
    n_planes = (len(sections) - 1) * ratio + 1
    z, y, x = np.meshgrid(
        np.arange(n_planes) / ratio, *(np.arange(n) for n in sections.shape[1:]), indexing="ij"
    )
    return to_grey(map_coordinates(sections.astype(np.float64), [z, y, x], order=1, mode="nearest"))


def receipt_files(run_file: RunFile) -> list[Path]:
    """The segments of receipts."""
    return sorted((Path(run_file.output.url) / RECORDS / FOLDER).glob("*.jsonl"))


def shard_file(run_file: RunFile, z: int, y: int, x: int) -> Path:
    """Where a shard of `em` is stored."""
    return Path(run_file.output.url) / "em" / "0" / "c" / str(z) / str(y) / str(x)
