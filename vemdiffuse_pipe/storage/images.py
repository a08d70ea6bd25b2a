"""One image of an output in the formats that are no OME-Zarr: its metadata, as small objects.

em/attributes.json      N5: the group, multiscales with one transform, as COSEM writes them
em/s0/attributes.json       the array, x y z; what n5-viewer reads is there too
em/info                 precomputed: one scale
em/provenance               what made it, as cloud-volume writes it
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import floor

from vemdiffuse_pipe.config import Json
from vemdiffuse_pipe.geometry import morton
from vemdiffuse_pipe.geometry.box import Zyx
from vemdiffuse_pipe.geometry.frame import Frame

N5_LEVEL = "s0"

_AXES = ["z", "y", "x"]


def n5_objects(name: str, frame: Frame, chunk_shape: Zyx) -> dict[str, Json]:
    """The documents of an N5 image, by key; the translation is the centre of voxel 0."""
    transform: Json = {
        "axes": _AXES,
        "scale": [float(size) for size in frame.voxel_size_nm],
        "translate": [float(centre) for centre in frame.centre_nm],
        "units": ["nm"] * 3,
    }
    resolution: Json = {"dimensions": _xyz([float(s) for s in frame.voxel_size_nm]), "unit": "nm"}
    dataset: Json = {"path": N5_LEVEL, "transform": transform}
    group: Json = {"n5": "4.0.0", "multiscales": [{"name": name, "datasets": [dataset]}]}
    array: Json = {
        "dimensions": _xyz(frame.shape),
        "blockSize": _xyz(chunk_shape),
        "dataType": "uint8",
        "compression": {"type": "gzip", "level": 1, "useZlib": False},
        "transform": transform,
        "pixelResolution": resolution,
        "downsamplingFactors": [1, 1, 1],
    }
    return {"attributes.json": group, f"{N5_LEVEL}/attributes.json": array}


def precomputed_objects(
    frame: Frame, chunk_shape: Zyx, shard_shape: Zyx, attributes: Mapping[str, Json]
) -> dict[str, Json]:
    """The documents of a precomputed image, by key.

    Its corner is a whole number of voxels, so ours is rounded, halves up: half a plane where r is even. How
    far that moved it is in `provenance`; the frame in the output's own attributes is exact.
    """
    size = [float(s) for s in frame.voxel_size_nm]
    corners = list(zip(frame.corner_nm, frame.voxel_size_nm, strict=True))
    offset = [floor(c / s + Fraction(1, 2) + Fraction(1, 10**6)) for c, s in corners]  # floats are not exact
    moved_nm = [float(n * s - c) for n, (c, s) in zip(offset, corners, strict=True)]
    scale: dict[str, Json] = {
        "key": "_".join(f"{s:.6g}" for s in size[::-1]),
        "size": _xyz(frame.shape),
        "chunk_sizes": [_xyz(chunk_shape)],
        "resolution": _xyz(size),
        "voxel_offset": _xyz(offset),
        "encoding": "raw",
    }
    if shard_shape != chunk_shape:
        scale["sharding"] = sharding(frame.shape, chunk_shape, shard_shape)
    info: Json = {
        "@type": "neuroglancer_multiscale_volume",
        "type": "image",
        "data_type": "uint8",
        "num_channels": 1,
        "scales": [scale],
    }
    return {"provenance": _provenance(attributes, moved_nm), "info": info}


def sharding(shape: Zyx, chunk_shape: Zyx, shard_shape: Zyx) -> dict[str, Json]:
    """How chunks are put into shards: those that differ in the low bits of their codes are together."""
    counts = chunk_counts(shape, chunk_shape)
    n_bits = morton.n_bits(counts)
    bits = next(
        n
        for n in range(n_bits + 1)
        if shard_shape == tuple(c * k for c, k in zip(chunk_shape, morton.covered(counts, n), strict=True))
    )
    return {
        "@type": "neuroglancer_uint64_sharded_v1",
        "hash": "identity",
        "preshift_bits": bits,
        "minishard_bits": 0,
        "shard_bits": n_bits - bits,
        "minishard_index_encoding": "gzip",
        "data_encoding": "gzip",
    }


def chunk_counts(shape: Zyx, chunk_shape: Zyx) -> Zyx:
    """Chunks along z, y and x."""
    z, y, x = (-(-n // c) for n, c in zip(shape, chunk_shape, strict=True))
    return z, y, x


def _provenance(attributes: Mapping[str, Json], moved_nm: Sequence[float]) -> Json:
    identity = attributes.get("identity")
    known = identity if isinstance(identity, Mapping) else {}
    method: Json = {key: known.get(key) for key in ("model", "ratio", "seed")}
    made_by: Json = {"by": "vemdiffuse_pipe", "method": method, "moved_nm": list(moved_nm)}
    return {
        "description": "Isotropic volume, made from an anisotropic one",
        "owners": [],
        "processing": [made_by],
        "sources": [known["source"]] if "source" in known else [],
    }


def document(content: Json) -> bytes:
    """A small object."""
    return json.dumps(content, indent=1, allow_nan=False).encode()


def _xyz(zyx: Sequence[int | float]) -> list[Json]:
    return list(zyx[::-1])
