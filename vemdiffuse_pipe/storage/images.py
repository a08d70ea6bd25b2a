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
from vemdiffuse_pipe.storage.encodings import LABEL_BLOCK

N5_LEVEL = "s0"

_AXES: list[Json] = ["z", "y", "x"]


def n5_objects(name: str, frame: Frame, chunk_shape: Zyx) -> dict[str, Json]:
    """The documents of an N5 image with one level, by key."""
    array = n5_array(frame, chunk_shape, "uint8", 0)
    return {"attributes.json": n5_group(name, [frame]), f"{N5_LEVEL}/attributes.json": array}


def n5_group(name: str, frames: Sequence[Frame]) -> Json:
    """What names the levels of an N5 image, of which `frames` are."""
    datasets: list[Json] = [
        {"path": f"s{level}", "transform": _transform(frame)} for level, frame in enumerate(frames)
    ]
    return {"n5": "4.0.0", "multiscales": [{"name": name, "datasets": datasets}]}


def n5_array(frame: Frame, chunk_shape: Zyx, dtype: str, level: int) -> Json:
    """One level of an N5 image; the translation is the centre of voxel 0."""
    factor = 2**level
    return {
        "dimensions": _xyz(frame.shape),
        "blockSize": _xyz(chunk_shape),
        "dataType": dtype,
        "compression": {"type": "gzip", "level": 1, "useZlib": False},
        "transform": _transform(frame),
        "pixelResolution": {"dimensions": _xyz([float(s) for s in frame.voxel_size_nm]), "unit": "nm"},
        "downsamplingFactors": [factor, factor, factor],
    }


def precomputed_objects(
    frame: Frame, chunk_shape: Zyx, shard_shape: Zyx, attributes: Mapping[str, Json]
) -> dict[str, Json]:
    """The documents of a precomputed image with one level, by key.

    Its corner is a whole number of voxels, so ours is rounded, halves up: half a plane where r is even. How
    far that moved it is in `provenance`; the frame in the output's own attributes is exact.
    """
    scale = precomputed_scale(frame, whole_corner(frame), chunk_shape, shard_shape, "raw")
    return {
        "provenance": precomputed_provenance(attributes, moved_nm(frame)),
        "info": precomputed_info([scale], "uint8"),
    }


def precomputed_info(scales: Sequence[Json], dtype: str) -> Json:
    """What names the levels of a precomputed image."""
    return {
        "@type": "neuroglancer_multiscale_volume",
        "type": "image" if dtype == "uint8" else "segmentation",
        "data_type": dtype,
        "num_channels": 1,
        "scales": list(scales),
    }


def precomputed_scale(frame: Frame, start: Zyx, chunk_shape: Zyx, shard_shape: Zyx, encoding: str) -> Json:
    """One level of a precomputed image, which begins at voxel `start` of its lattice."""
    scale: dict[str, Json] = {
        "key": scale_key(frame),
        "size": _xyz(frame.shape),
        "chunk_sizes": [_xyz(chunk_shape)],
        "resolution": _xyz([float(s) for s in frame.voxel_size_nm]),
        "voxel_offset": _xyz(start),
        "encoding": encoding,
    }
    if encoding == "compressed_segmentation":
        scale["compressed_segmentation_block_size"] = list(LABEL_BLOCK)
    if shard_shape != chunk_shape:
        scale["sharding"] = sharding(frame.shape, chunk_shape, shard_shape)
    return scale


def scale_key(frame: Frame) -> str:
    """The folder of a precomputed level: its voxel size in nm, x y z."""
    return "_".join(f"{float(s):.6g}" for s in frame.voxel_size_nm[::-1])


def whole_corner(frame: Frame) -> Zyx:
    """The corner in whole voxels, halves up."""
    corners = zip(frame.corner_nm, frame.voxel_size_nm, strict=True)
    z, y, x = (floor(c / s + Fraction(1, 2) + Fraction(1, 10**6)) for c, s in corners)  # floats are not exact
    return z, y, x


def moved_nm(frame: Frame) -> list[float]:
    """How far rounding moves the corner, nm, zyx."""
    corners = zip(whole_corner(frame), frame.voxel_size_nm, frame.corner_nm, strict=True)
    return [float(n * s - c) for n, s, c in corners]


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


def precomputed_provenance(attributes: Mapping[str, Json], moved_nm: Sequence[float]) -> Json:
    """What made a precomputed image, and how far rounding moved its corner."""
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


def _transform(frame: Frame) -> Json:
    return {
        "axes": _AXES,
        "scale": [float(size) for size in frame.voxel_size_nm],
        "translate": [float(centre) for centre in frame.centre_nm],
        "units": ["nm"] * 3,
    }


def _xyz(zyx: Sequence[int | float]) -> list[Json]:
    return list(zyx[::-1])
