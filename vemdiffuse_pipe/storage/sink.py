"""The output: a group with one OME-Zarr image for each array, written in whole shards."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NoReturn

import numpy as np

from vemdiffuse_pipe.config import Json, OutputFormat
from vemdiffuse_pipe.errors import MisalignedWriteError, OutputError, SourceError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Frame, exact_nm
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.storage import faults, metadata, objects, precomputed, stores
from vemdiffuse_pipe.storage.address import Address, parse_address
from vemdiffuse_pipe.storage.chunked import WholeShards, open_for_reading, open_for_writing
from vemdiffuse_pipe.storage.images import N5_LEVEL
from vemdiffuse_pipe.storage.layout import GROUP, LEVEL, PROVENANCE, SINK, Objects, Version, output_objects
from vemdiffuse_pipe.storage.levels import Reader
from vemdiffuse_pipe.storage.n5_array import N5Array
from vemdiffuse_pipe.storage.shards import ShardWriter
from vemdiffuse_pipe.storage.zarr_array import ZarrArray
from vemdiffuse_pipe.volume import VolumeSpec, Voxels


def create_sink(
    url: str | os.PathLike[str],
    frame: Frame,
    *,
    arrays: Sequence[str] = ("em", "uncertainty"),
    chunk_shape: Zyx,
    shard_shape: Zyx,
    output_format: OutputFormat = "ome-zarr-0.5",
    attributes: Mapping[str, Json],
    provenance: Voxels,
) -> StoredSink:
    """A new output group at `url`, open for writing.

    Each of `arrays` is an image of one level: uint8, zyx, placed by `frame`. `provenance`: one code a plane,
    (frame.shape[0],) uint8. `attributes` describe the run. Nothing that is there is ever written over; an
    output whose creation was interrupted is completed by creating it again, and of many processes that create
    one at once each ends with the same: what the first of them wrote.

    Raises OutputError where the output cannot be made here, or as described; StorageFullError.

    Example:

        >>> import numpy as np
        >>> from vemdiffuse_pipe import Frame, create_sink
        >>> voxels = np.zeros((8, 8, 8), np.uint8)
        >>> frame = Frame(voxels.shape, (10, 10, 10))
        >>> sink = create_sink(
        ...     "small.zarr", frame, arrays=("em",), chunk_shape=(8, 8, 8), shard_shape=(8, 8, 8),
        ...     attributes={}, provenance=np.ones(8, np.uint8),
        ... )
        >>> sink.write("em", frame.box, voxels)
    """
    check_can_be_written(url)
    address = parse_address(url)
    _check_names(arrays)
    _check_shapes(chunk_shape, shard_shape, output_format)
    if provenance.shape != (frame.shape[0],):
        raise OutputError(
            f"provenance has shape {provenance.shape}; {frame.shape[0]} planes need one code each"
        )
    contents = output_objects(frame, arrays, chunk_shape, shard_shape, output_format, attributes, provenance)
    _check_place(address, contents)
    for key, data in contents.items():
        objects.write_bytes_if_absent(address / key, data)
    return open_sink(url)


def check_can_be_written(url: str | os.PathLike[str]) -> None:
    """Raises OutputError where nothing can be written at all."""
    address = parse_address(url)
    if not address.is_local and not address.store.startswith(("s3", "gs:")):
        raise OutputError(f"{url}: a web server is only read; give an output on a disk, at s3:// or at gs://")
    if address.is_local:
        _check_path(address)


def _check_path(address: Address) -> None:
    if len(os.fsencode(address.name)) > MAX_NAME:
        raise OutputError(
            f"{address.name[:40]}... has more than {MAX_NAME} bytes; give the output a shorter name"
        )
    try:
        address.path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return  # the one is made, the other refused where it is made
    except OSError as error:
        raise OutputError(f"{address} can be no output: {error.strerror}; choose another place") from error


def open_sink(url: str | os.PathLike[str]) -> StoredSink:
    """The output group that was created at `url`, open for writing and reading.

    Raises OutputError where there is none, or its metadata is damaged.
    """
    address = parse_address(url)
    try:
        return _opened(address)
    except SourceError as error:
        raise OutputError(f"{address} is no output that can be continued: {error}") from error


MAX_NAME = 200  # bytes: names that are derived from an output's end in something more

OWN_FOLDER = ".vemdiffuse"  # receipts and marks, written by a run
_NAMES_OF_METADATA = ("zarr.json", ".zgroup", ".zattrs", ".zarray", "attributes.json", "info")


@dataclass(frozen=True, slots=True)
class StoredArray:
    """One array of an output, for reading and for writing whole shards."""

    reader: Reader
    writer: ShardWriter | WholeShards


class StoredSink:
    """An output group on a store. One writer for each shard: writes are whole shards or refused."""

    def __init__(
        self,
        spec: VolumeSpec,
        stored: Mapping[str, StoredArray],
        attributes: Mapping[str, object],
        provenance: Voxels,
    ) -> None:
        self._spec = spec
        self._stored = stored
        self._attributes = attributes
        self._provenance = provenance
        self._shards = BlockGrid(spec.shape, spec.shard_shape)

    @property
    def spec(self) -> VolumeSpec:
        """Shape, frame, chunks and shards, the same for every array."""
        return self._spec

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays that a block must write."""
        return tuple(self._stored)

    @property
    def attributes(self) -> Mapping[str, object]:
        """What `create_sink` was told about the run."""
        return self._attributes

    @property
    def provenance(self) -> Voxels:
        """One code a plane."""
        return self._provenance

    def write_provenance(self, codes: Voxels) -> None:
        """Put other codes in place of those that the output was created with; one writer, when a run ends.

        `codes`: uint8, one a plane. Raises OutputError, StorageFullError or TransientError.
        """
        assert codes.shape == self._provenance.shape, f"{codes.shape} codes"
        key = "c/0" if self._spec.format != "ome-zarr 0.4" else "0"
        address = parse_address(self._spec.url) / PROVENANCE / key
        objects.write_bytes_atomically(address, np.ascontiguousarray(codes, np.uint8).tobytes())
        self._provenance = codes

    def write(self, array: str, box: Box, voxels: Voxels) -> None:
        """Write whole shards of one array, durably, before returning; nothing is read.

        `voxels`: uint8, of the box's shape. Raises MisalignedWriteError unless `box` is made of whole
        shards; OutputError, StorageFullError or TransientError.
        """
        if not self._shards.is_aligned(box):
            raise MisalignedWriteError(
                f"write box {box} does not cover whole shards of {self._spec.shard_shape}; "
                f"nearest block shape: {self._nearest_block_shape(box)}"
            )
        assert voxels.shape == box.shape, f"voxels of shape {voxels.shape} for {box}"
        assert voxels.dtype == np.uint8, f"voxels are {voxels.dtype}"
        with faults.writing(f"{array} {box} of {self._spec.url}"):
            self._stored[array].writer.write(box, voxels)

    def read(self, array: str, box: Box) -> Voxels:
        """What is stored: uint8, zyx. Raises MissingDataError, CorruptDataError or TransientError."""
        return self._stored[array].reader.read(box).astype(np.uint8, copy=False)

    def _nearest_block_shape(self, box: Box) -> Zyx:
        z, y, x = (max(1, round(n / s)) * s for n, s in zip(box.shape, self._spec.shard_shape, strict=True))
        return z, y, x


def _rounded_up(shape: Zyx, unit: Zyx) -> Zyx:
    z, y, x = (-(-n // u) * u for n, u in zip(shape, unit, strict=True))
    return z, y, x


def _opened(address: Address) -> StoredSink:
    document = metadata.read_document(address / "zarr.json")
    if document is not None:
        version: Version = "0.5"
        group = metadata.mapping(document.get("attributes", {}), f"{address}: attributes")
    else:
        version = "0.4"
        group = metadata.read_document(address / ".zattrs") or {}
    if GROUP not in group:
        is_absent = address.is_local and not address.path.exists()
        found = "does not exist" if is_absent else "is no output of vemdiffuse"
        raise OutputError(f"{address} {found}; an existing output is needed")
    attributes = metadata.mapping(group.get(GROUP), f"{address}: attribute {GROUP}")
    sink = metadata.mapping(group.get(SINK), f"{address}: attribute {SINK}")
    names = [
        metadata.inner_path(name, f"{address}: arrays") for name in metadata.items(sink.get("arrays"), SINK)
    ]
    kind = metadata.text(sink.get("format", f"ome-zarr-{version}"), f"{address}: format")
    stored = {name: _stored_array(address / name, kind) for name in names}
    spec = _spec(address, kind, sink, stored[names[0]].reader)
    return StoredSink(spec, stored, attributes, _codes(address / PROVENANCE, spec.shape[0]))


def _stored_array(address: Address, kind: str) -> StoredArray:
    what = str(address)
    if kind == "precomputed":
        (level,) = precomputed.find_levels(address)
        reader = level.array.open()
        if reader.shard_shape != reader.chunk_shape:
            shards = ShardWriter(address / level.name, reader.shape, reader.chunk_shape, reader.shard_shape)
            return StoredArray(reader, shards)
        spec = {"driver": "neuroglancer_precomputed", "kvstore": stores.kvstore_of(address)}
        return StoredArray(reader, WholeShards(open_for_writing(spec, what), "xyzc", reader.shape))
    stored = N5Array(address / N5_LEVEL) if kind == "n5" else ZarrArray(address / LEVEL)
    reader = stored.open()
    shape = _rounded_up(reader.shape, reader.shard_shape)
    writer = open_for_writing(stored.spec_of_shape(shape), what)
    return StoredArray(reader, WholeShards(writer, "xyz" if kind == "n5" else "zyx", shape))


def _codes(address: Address, n_planes: int) -> Voxels:
    spec = ZarrArray(address).spec_of_shape((n_planes,))
    with faults.opening(str(address)):
        codes: Voxels = open_for_reading(spec, str(address), cache_bytes=0).read().result()
    return codes


def _spec(address: Address, kind: str, sink: dict[str, object], first: Reader) -> VolumeSpec:
    voxel_size_nm, corner_nm = (
        exact_nm([metadata.fraction(n, SINK) for n in metadata.items(sink.get(key), SINK)])
        for key in ("voxel_size_nm", "corner_nm")
    )
    return VolumeSpec(
        url=str(address),
        format=kind.replace("zarr-", "zarr "),
        frame=Frame(first.shape, voxel_size_nm, corner_nm),
        dtype=first.dtype,
        chunk_shape=first.chunk_shape,
        shard_shape=first.shard_shape,
    )


def _check_shapes(chunk_shape: Zyx, shard_shape: Zyx, output_format: OutputFormat) -> None:
    chunks = list(zip(shard_shape, chunk_shape, strict=True))
    if any(chunk < 1 or shard < 1 or shard % chunk for shard, chunk in chunks):
        raise OutputError(
            f"chunks of {chunk_shape} do not divide shards of {shard_shape}; whole chunks are needed"
        )
    if prod(shard_shape) > metadata.MAX_OBJECT:
        raise OutputError(f"shards of {shard_shape} are larger than 4 GiB; smaller ones are needed")
    if output_format in ("ome-zarr-0.4", "n5") and chunk_shape != shard_shape:
        raise OutputError(f"{output_format} has no shards; {shard_shape} must be {chunk_shape}, the chunk")


def _check_names(arrays: Sequence[str]) -> None:
    are_names = all(name.isidentifier() and name != PROVENANCE for name in arrays)
    if not arrays or not are_names or len(set(arrays)) < len(arrays):
        raise OutputError(
            f"arrays {list(arrays)}; different names are needed, and none may be {PROVENANCE!r}"
        )


def check_place(address: Address, arrays: Sequence[str]) -> None:
    """Raises OutputError where an output of `arrays` cannot be created: a file, a folder in use.

    For a check before its metadata is known, so what an interrupted creation left passes. On a disk only: a
    bucket is checked when the output is created.
    """
    if not address.is_local:
        return
    _check_folder(address)
    known = {*arrays, PROVENANCE, *_NAMES_OF_METADATA}
    for key in _keys_below(address):
        if key.partition("/")[0] not in known:
            _refuse_place(address, key)


def _check_folder(address: Address) -> None:
    nearest = next(path for path in (address.path, *address.path.parents) if path.exists())
    if not nearest.is_dir():
        raise OutputError(f"{nearest} is a file; the output {address} needs a folder there")


def _check_place(address: Address, contents: Objects) -> None:
    """Nothing is at `address`, or only what an interrupted creation of the same output left there."""
    if not address.is_local:
        _check_remote_place(address, contents)
        return
    _check_folder(address)
    *_, last = contents
    if objects.read_bytes(address / last) == contents[last]:
        raise OutputError(f"{address} holds this output already; open it to continue it")
    for key in _keys_below(address):
        if objects.read_bytes(address / key, len(contents.get(key, b"")) + 1) != contents.get(key):
            _refuse_place(address, key)


def _check_remote_place(address: Address, contents: Objects) -> None:
    """The same, without a list of all that is there, which may be a petabyte: what says that a folder holds
    a volume, each name that will be written, and what an earlier output may have left of its receipts.
    """
    *_, last = contents
    if objects.read_bytes(address / last) == contents[last]:
        raise OutputError(f"{address} holds this output already; open it to continue it")
    folders = {"", *(f"{key.partition('/')[0]}/" for key in contents if "/" in key)}
    names = {f"{folder}{name}" for folder in folders for name in _NAMES_OF_METADATA}
    for key in sorted({*contents, *names}):
        found = objects.read_bytes(address / key, len(contents.get(key, b"")) + 1)
        if found is not None and found != contents.get(key):
            _refuse_place(address, key)
    for name in objects.list_names(address / OWN_FOLDER):
        _refuse_place(address, f"{OWN_FOLDER}/{name}")


def _refuse_place(address: Address, key: str) -> NoReturn:
    raise OutputError(
        f"{address} is not empty (it holds {key}) and nothing is ever written over; "
        "choose another place for the output, or remove what is there"
    )


def _keys_below(address: Address, prefix: str = "") -> Iterator[str]:
    for name in objects.list_names(address):
        if (address / name).path.is_dir():
            yield from _keys_below(address / name, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}"
