"""The output group, as small objects: every object of an output but its voxels, in the order of writing.

    OUT/  zarr.json            {"vemdiffuse": the run's description}      written last: it makes an output
                               and the image that other programs open: the levels of the first array
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
Multiscale = dict[str, Json]

GROUP = "vemdiffuse"  # the attribute that makes a group an output of ours
SINK = "vemdiffuse_sink"  # beside it: what reopening needs
PROVENANCE = "provenance"
LEVEL = "0"
ZSTD_LEVEL = 3
SHOWN_RANGE = {"uncertainty": (0, 80)}  # stored values; of other arrays all grey levels are shown

_AXES = ("z", "y", "x")
_LITTLE: Json = {"name": "bytes", "configuration": {"endian": "little"}}


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
                image = image_group(name, [frame], version)
                objects |= {f"{name}/{key}": data for key, data in image.items()}
                objects |= volume(f"{name}/{LEVEL}/", frame.shape, chunk_shape, shard_shape, version)
        objects |= {f"{name}/{key}": images.document(content) for key, content in documents.items()}
    objects |= _provenance(f"{PROVENANCE}/", provenance, version)
    root: dict[str, Json] = {GROUP: attributes, SINK: _sink_attributes(frame, arrays, output_format)}
    if output_format in ("ome-zarr-0.4", "ome-zarr-0.5"):
        first = multiscale(arrays[0], [frame], version, prefix=f"{arrays[0]}/")
        root = {**image_attributes(first, version), **root}
    return objects | _group("", root, version)


def _sink_attributes(frame: Frame, arrays: Sequence[str], output_format: OutputFormat) -> Json:
    """What reopening needs and the images cannot say exactly: 50 / 11 nm is no decimal."""
    return {
        "arrays": list(arrays),
        "format": output_format,
        "voxel_size_nm": [str(size) for size in frame.voxel_size_nm],
        "corner_nm": [str(corner) for corner in frame.corner_nm],
    }


def multiscale(name: str, levels: Sequence[Frame], version: Version, prefix: str = "") -> Multiscale:
    """One image: the path of each level, below `prefix`, its scale, and the centre of its voxel 0.

    `levels`: where each level lies, finest first. `omero` says how it is shown: its name and its range.
    """
    image: dict[str, Json] = {
        "name": name,
        "axes": [{"name": axis, "type": "space", "unit": "nanometer"} for axis in _AXES],
        "datasets": [
            {"path": f"{prefix}{level}", "coordinateTransformations": _transformations(placed)}
            for level, placed in enumerate(levels)
        ],
    }
    if version == "0.4":
        image["version"] = version
    return {"multiscales": [image], "omero": {"channels": [_channel(name)]}}


def root_document(
    document: Mapping[str, Json], name: str, levels: Sequence[Frame], version: Version
) -> dict[str, Json]:
    """The metadata of an output's group, with the levels of its first image named in it.

    `document`: what is stored now: of version 0.5 the whole zarr.json, of 0.4 the attributes.
    """
    image = image_attributes(multiscale(name, levels, version, prefix=f"{name}/"), version)
    if version == "0.4":
        return {**document, **image}
    attributes = document.get("attributes")
    known = attributes if isinstance(attributes, Mapping) else {}
    return {**document, "attributes": {**known, **image}}


def image_group(name: str, levels: Sequence[Frame], version: Version) -> Objects:
    """The objects of an image's own group, by key within it."""
    return _group("", image_attributes(multiscale(name, levels, version), version), version)


def image_attributes(image: Multiscale, version: Version) -> dict[str, Json]:
    """The attributes of a group that is `image`, where its version keeps them."""
    return {"ome": {"version": version, **image}} if version == "0.5" else image


def _transformations(frame: Frame) -> Json:
    scale: Json = {"type": "scale", "scale": [float(s) for s in frame.voxel_size_nm]}
    translation: Json = {"type": "translation", "translation": [float(c) for c in frame.centre_nm]}
    return [scale, translation]


def _channel(name: str) -> Json:
    shown = SHOWN_RANGE.get(name, (0, 255))
    window: Json = {"min": 0, "max": 255, "start": shown[0], "end": shown[1]}
    return {"label": name, "color": "FFFFFF", "active": True, "window": window}


def _group(prefix: str, attributes: Mapping[str, Json], version: Version) -> Objects:
    if version == "0.5":
        return _document(
            f"{prefix}zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        )
    return _document(f"{prefix}.zgroup", {"zarr_format": 2}) | _document(f"{prefix}.zattrs", attributes)


def volume(
    prefix: str, shape: Zyx, chunk_shape: Zyx, shard_shape: Zyx, version: Version, dtype: str = "uint8"
) -> Objects:
    """One level of an OME-Zarr image: the metadata of its array. `dtype`: numpy's name."""
    typesize = np.dtype(dtype).itemsize
    if version == "0.4":
        compressor: Json = {
            "id": "blosc",
            "cname": "zstd",
            "clevel": ZSTD_LEVEL,
            "shuffle": 0,
            "blocksize": 0,
        }
        return _array_2(prefix, shape, chunk_shape, compressor, dtype)
    blosc: Json = {
        "cname": "zstd",
        "clevel": ZSTD_LEVEL,
        "shuffle": "noshuffle",
        "typesize": typesize,
        "blocksize": 0,
    }
    as_bytes: Json = {"name": "bytes"} if typesize == 1 else _LITTLE
    sharding: Json = {
        "chunk_shape": list(chunk_shape),
        "codecs": [as_bytes, {"name": "blosc", "configuration": blosc}],
        "index_codecs": [_LITTLE, {"name": "crc32c"}],
        "index_location": "end",
    }
    codec: Json = {"name": "sharding_indexed", "configuration": sharding}
    more: Mapping[str, Json] = {"dimension_names": list(_AXES)}
    return _array_3(prefix, shape, shard_shape, codec, more, dtype)


def _provenance(prefix: str, provenance: Voxels, version: Version) -> Objects:
    """One uncompressed chunk, and what its numbers mean."""
    codes: Mapping[str, Json] = {"codes": {str(int(code)): code.name.lower() for code in Provenance}}
    data = np.ascontiguousarray(provenance, np.uint8).tobytes()
    if version == "0.4":
        array = _array_2(prefix, provenance.shape, provenance.shape, None)
        return {f"{prefix}0": data} | array | _document(f"{prefix}.zattrs", codes)
    array = _array_3(prefix, provenance.shape, provenance.shape, {"name": "bytes"}, {"attributes": codes})
    return {f"{prefix}c/0": data} | array


def _array_2(
    prefix: str, shape: Sequence[int], chunks: Sequence[int], compressor: Json, dtype: str = "uint8"
) -> Objects:
    document: dict[str, Json] = {
        "zarr_format": 2,
        "shape": list(shape),
        "chunks": list(chunks),
        "dtype": np.dtype(dtype).newbyteorder("<").str,
        "compressor": compressor,
        "fill_value": 0,
        "order": "C",
        "filters": None,
        "dimension_separator": "/",
    }
    return _document(f"{prefix}.zarray", document)


def _array_3(
    prefix: str,
    shape: Sequence[int],
    chunks: Sequence[int],
    codec: Json,
    more: Mapping[str, Json],
    dtype: str = "uint8",
) -> Objects:
    document: dict[str, Json] = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [codec],
    }
    return _document(f"{prefix}zarr.json", {**document, **more})


def _document(key: str, content: Mapping[str, Json]) -> Objects:
    return {key: json.dumps(content, indent=1, allow_nan=False).encode()}
