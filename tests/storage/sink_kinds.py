"""One volume, and every way of storing it."""

from fractions import Fraction

import numpy as np

from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.storage import create_sink
from vemdiffuse_pipe.testing import position_coded

SHAPE = (11, 23, 37)
VOXELS = position_coded(SHAPE)
FRAME = Frame(
    SHAPE, (Fraction(50, 11), Fraction(4), Fraction("4.3")), (Fraction(25), Fraction(-7, 3), Fraction(0))
)
WHOLE = FRAME.box
PROVENANCE = np.array([1, 2, 2, 2, 2, 1, 3, 3, 0, 3, 1], np.uint8)
ATTRIBUTES = {"run": "8c1f", "seed": 1, "uncertainty_scale": 0.25}
KINDS = {
    "0.5-sharded": {"output_format": "ome-zarr-0.5", "chunk_shape": (4, 8, 8), "shard_shape": (8, 16, 16)},
    "0.5-one-chunk-a-shard": {
        "output_format": "ome-zarr-0.5",
        "chunk_shape": (5, 7, 16),
        "shard_shape": (5, 7, 16),
    },
    "0.5-larger-than-the-volume": {
        "output_format": "ome-zarr-0.5",
        "chunk_shape": (16, 32, 64),
        "shard_shape": (16, 32, 64),
    },
    "0.4": {"output_format": "ome-zarr-0.4", "chunk_shape": (8, 16, 16), "shard_shape": (8, 16, 16)},
    "n5": {"output_format": "n5", "chunk_shape": (8, 16, 16), "shard_shape": (8, 16, 16)},
    "precomputed": {"output_format": "precomputed", "chunk_shape": (8, 16, 16), "shard_shape": (8, 16, 16)},
    "precomputed-sharded": {
        "output_format": "precomputed",
        "chunk_shape": (4, 8, 8),
        "shard_shape": (8, 16, 16),
    },
    "precomputed-one-shard": {
        "output_format": "precomputed",
        "chunk_shape": (4, 8, 8),
        "shard_shape": (16, 32, 64),
    },
}
NGFF = [kind for kind in KINDS if kind[0] == "0"]
PRECOMPUTED = [kind for kind in KINDS if kind.startswith("precomputed")]


def create(path, frame=FRAME, attributes=ATTRIBUTES, **options):
    options = {"provenance": PROVENANCE} | KINDS["0.5-sharded"] | options
    return create_sink(path, frame, attributes=attributes, **options)


def shards(sink):
    grid = BlockGrid(sink.spec.shape, sink.spec.shard_shape)
    return [grid.box(i) for i in range(grid.n_blocks)]


def snapshot(path):
    return {str(f.relative_to(path)): f.read_bytes() for f in sorted(path.rglob("*")) if f.is_file()}
