"""A volume in an S3 server that is as large as wanted: all its shards are the same object."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
from servers import BUCKET, client, upload

from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Frame, exact_nm
from vemdiffuse_pipe.storage import create_sink

SHARD, CHUNK = (64, 512, 512), (64, 128, 128)


def large_volume(endpoint: str, folder: Path, n_shards: Zyx) -> str:
    """The address of an isotropic OME-Zarr of so many shards of 16 MB, zyx, textured and compressible."""
    z, y, x = (n * m for n, m in zip(n_shards, SHARD, strict=True))
    sink = create_sink(
        folder / "large.zarr",
        Frame((z, y, x), exact_nm([10, 10, 10])),
        arrays=("em",),
        chunk_shape=CHUNK,
        shard_shape=SHARD,
        attributes={},
        provenance=np.ones(z, np.uint8),
    )
    grain = np.random.default_rng(0).integers(60, 200, (SHARD[0], 1, 128), dtype=np.uint8)
    sink.write("em", Box.of_shape(SHARD), np.broadcast_to(np.tile(grain, 4), SHARD).copy())
    url = upload(folder / "large.zarr", endpoint, "large.zarr")
    (shard,) = (p for p in (folder / "large.zarr/em").rglob("0") if p.is_file())
    name = str(shard.relative_to(folder)).removesuffix("0/0/0")
    data, s3 = shard.read_bytes(), client(endpoint)
    for i, j, k in product(*map(range, n_shards)):
        s3.put_object(Bucket=BUCKET, Key=f"{name}{i}/{j}/{k}", Body=data, ACL="public-read")
    return f"{url}/em"
