"""The output group, as small objects: every object of an output but its voxels, in the order of writing.

    OUT/  zarr.json            {"vemdiffuse": the run's description}      written last: it makes an output
          em/zarr.json         OME-Zarr image with one level
          em/0/zarr.json       the array: shards of chunks
          em/0/c/...           voxels, written by the blocks
          uncertainty/...      the same
          provenance/zarr.json, provenance/c/0      one uint8 for each plane

In version 0.4 there are .zgroup, .zattrs and .zarray, and a shard is a chunk. Where the images are N5 or
precomputed (see images.py), the group around them is what it is in 0.5.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from vemdiffuse_pipe.config import Json, OutputFormat
from vemdiffuse_pipe.geometry.box import Zyx
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.geometry.plane_groups import Provenance
from vemdiffuse_pipe.storage import images
from vemdiffuse_pipe.volume import Voxels

Version = Literal["0.5", "0.4"]
Objects = dict[str, bytes]  # key -> content, in the order of writing

GROUP = "vemdiffuse"  # the attribute that makes a group an output of ours
SINK = "vemdiffuse_sink"  # beside it: what reopening needs
PROVENANCE = "provenance"
LEVEL = "0"
ZSTD_LEVEL = 3

_AXES = ("z", "y", "x")


def output_objects(
    frame: Frame,
    arrays: Sequence[str],
    chunk_shape: Zyx,
    shard_shape: Zyx,
    output_format: OutputFormat,
    attributes: Mapping[str, Json],
    provenance: Voxels,
) -> Objects:
    """All objects of a new output but its voxels; the last one holds the attributes of the group."""
    objects: Objects = {}
    version: Version = "0.4" if output_format == "ome-zarr-0.4" else "0.5"
    for name in arrays:
        match output_format:
            case "n5":
                documents = images.n5_objects(name, frame, chunk_shape)
            case "precomputed":
                documents = images.precomputed_objects(frame, chunk_shape, shard_shape, attributes)
            case _:
                documents = {}
                image = _image(name, frame, version)
                objects |= _group(f"{name}/", {"ome": image} if version == "0.5" else image, version)
                objects |= _volume(f"{name}/{LEVEL}/", frame.shape, chunk_shape, shard_shape, version)
        objects |= {f"{name}/{key}": images.document(content) for key, content in documents.items()}
    objects |= _provenance(f"{PROVENANCE}/", provenance, version)
    return objects | _group(
        "", {GROUP: attributes, SINK: _sink_attributes(frame, arrays, output_format)}, version
    )


def _sink_attributes(frame: Frame, arrays: Sequence[str], output_format: OutputFormat) -> Json:
    """What reopening needs and the images cannot say exactly: 50 / 11 nm is no decimal."""
    return {
        "arrays": list(arrays),
        "format": output_format,
        "voxel_size_nm": [str(size) for size in frame.voxel_size_nm],
        "corner_nm": [str(corner) for corner in frame.corner_nm],
    }


def _image(name: str, frame: Frame, version: Version) -> dict[str, Json]:
    """One multiscale image with one level; the translation is the centre of voxel 0."""
    scale: Json = {"type": "scale", "scale": [float(s) for s in frame.voxel_size_nm]}
    translation: Json = {"type": "translation", "translation": [float(c) for c in frame.centre_nm]}
    image: dict[str, Json] = {
        "name": name,
        "axes": [{"name": axis, "type": "space", "unit": "nanometer"} for axis in _AXES],
        "datasets": [{"path": LEVEL, "coordinateTransformations": [scale, translation]}],
    }
    if version == "0.5":
        return {"version": version, "multiscales": [image]}
    return {"multiscales": [{**image, "version": version}]}


def _group(prefix: str, attributes: Mapping[str, Json], version: Version) -> Objects:
    if version == "0.5":
        return _document(
            f"{prefix}zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        )
    return _document(f"{prefix}.zgroup", {"zarr_format": 2}) | _document(f"{prefix}.zattrs", attributes)


def _volume(prefix: str, shape: Zyx, chunk_shape: Zyx, shard_shape: Zyx, version: Version) -> Objects:
    if version == "0.4":
        compressor: Json = {
            "id": "blosc",
            "cname": "zstd",
            "clevel": ZSTD_LEVEL,
            "shuffle": 0,
            "blocksize": 0,
        }
        return _array_2(prefix, shape, chunk_shape, compressor)
    blosc: Json = {
        "cname": "zstd",
        "clevel": ZSTD_LEVEL,
        "shuffle": "noshuffle",
        "typesize": 1,
        "blocksize": 0,
    }
    sharding: Json = {
        "chunk_shape": list(chunk_shape),
        "codecs": [{"name": "bytes"}, {"name": "blosc", "configuration": blosc}],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "index_location": "end",
    }
    codec: Json = {"name": "sharding_indexed", "configuration": sharding}
    return _array_3(prefix, shape, shard_shape, codec, {"dimension_names": list(_AXES)})


def _provenance(prefix: str, provenance: Voxels, version: Version) -> Objects:
    """One uncompressed chunk, and what its numbers mean."""
    codes: Mapping[str, Json] = {"codes": {str(int(code)): code.name.lower() for code in Provenance}}
    data = np.ascontiguousarray(provenance, np.uint8).tobytes()
    if version == "0.4":
        array = _array_2(prefix, provenance.shape, provenance.shape, None)
        return {f"{prefix}0": data} | array | _document(f"{prefix}.zattrs", codes)
    array = _array_3(prefix, provenance.shape, provenance.shape, {"name": "bytes"}, {"attributes": codes})
    return {f"{prefix}c/0": data} | array


def _array_2(prefix: str, shape: Sequence[int], chunks: Sequence[int], compressor: Json) -> Objects:
    document: dict[str, Json] = {
        "zarr_format": 2,
        "shape": list(shape),
        "chunks": list(chunks),
        "dtype": "|u1",
        "compressor": compressor,
        "fill_value": 0,
        "order": "C",
        "filters": None,
        "dimension_separator": "/",
    }
    return _document(f"{prefix}.zarray", document)


def _array_3(
    prefix: str, shape: Sequence[int], chunks: Sequence[int], codec: Json, more: Mapping[str, Json]
) -> Objects:
    document: dict[str, Json] = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [codec],
    }
    return _document(f"{prefix}zarr.json", {**document, **more})


def _document(key: str, content: Mapping[str, Json]) -> Objects:
    return {key: json.dumps(content, indent=1, allow_nan=False).encode()}
