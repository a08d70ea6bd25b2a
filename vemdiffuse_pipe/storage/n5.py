"""N5 volumes. Axes are stored x, y, z; five ways of writing where voxels lie are known.

COSEM           transform {axes, scale, translate, units}, axes by name; translate is the centre of voxel 0.
                In each array, or for all of them in the group's multiscales
n5-viewer       s0, s1, ...: pixelResolution {dimensions, unit}, x y z, times downsamplingFactors;
                every level has its corner at 0
bigdataviewer   setup0/timepoint0/s0, ...: resolution without a unit, times downsamplingFactors
paintera        painteraData, and data/s0, ...: the same in data/, with an offset in the same unit
plain           one array: pixelResolution, or nothing
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.storage import metadata, stores
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.chunked import ChunkedReader, open_for_reading
from vemdiffuse_pipe.storage.levels import ORIGIN, UNIT_VOXEL, Level, Volume, zyx_of

_ATTRIBUTES = "attributes.json"

Attributes = dict[str, object]


def find(address: Address) -> Volume | None:
    """The volume at `address`: one array, or a group of levels s0, s1, ... Raises SourceError.

    None where there are no N5 attributes, of a group or of its first level.
    """
    group = metadata.read_document(address / _ATTRIBUTES)
    if group is not None and "painteraData" in group:
        address = address / "data"
        group = metadata.read_document(address / _ATTRIBUTES)
    if group is not None and "dimensions" in group:
        levels = [_level_of_parent(address, group) or _level(address, "0", group, {}, 0)]
    elif group is not None and "multiscales" in group:
        levels = _cosem_levels(address, group)
    else:
        levels = _numbered_levels(address, group or {})
    if not levels and group is None:
        return None
    if not levels:
        raise SourceError(
            f"{address} is an N5 group without an array; give the address of an array, "
            f"or of a group of levels s0, s1, ... (it holds {metadata.contents(address)})"
        )
    return Volume(str(address), "n5", levels)


@dataclass(frozen=True, slots=True)
class N5Array:
    """The array at `address`; `axes` names its axes in stored order, where the metadata does."""

    address: Address
    axes: Sequence[str] | None = None

    def spec_of_shape(self, shape: Sequence[int]) -> dict[str, object]:
        """The array as tensorstore names it, with `shape`, zyx, instead of its own."""
        attributes = metadata.read_document(self.address / _ATTRIBUTES) or {}
        assumed = {"metadata": {**attributes, "dimensions": list(shape[::-1])}, "assume_metadata": True}
        return {"driver": "n5", "kvstore": stores.kvstore_of(self.address), **assumed}

    def open(self, cache_bytes: int = 0, channel: int | None = None) -> ChunkedReader:
        """The array, zyx. Raises SourceError for metadata that is absent, hostile or not of a volume."""
        where = str(self.address / _ATTRIBUTES)
        attributes = metadata.read_document(self.address / _ATTRIBUTES)
        if attributes is None:
            raise SourceError(f"{self.address} holds no N5 array: {_ATTRIBUTES} is not there")
        rank = len(metadata.shape(attributes.get("dimensions"), f"{where}: dimensions"))
        metadata.chunk_shape(attributes.get("blockSize"), f"{where}: blockSize", rank)
        if rank < 3:
            raise SourceError(f"{self.address} has {rank} axes; a volume needs three: x, y, z")
        what = str(self.address)
        spec = {
            "driver": "n5",
            "kvstore": stores.kvstore_of(self.address),
            **_compression_restated(attributes),
        }
        return ChunkedReader(open_for_reading(spec, what, cache_bytes), self.axes or "xyzct", what, channel)


def _compression_restated(attributes: Attributes) -> Attributes:
    """Before N5 2.0 compression was a bare name, which tensorstore does not read."""
    if "compression" in attributes or "compressionType" not in attributes:
        return {}
    keys = ("dimensions", "blockSize", "dataType")
    restated = {key: attributes.get(key) for key in keys} | {
        "compression": {"type": attributes["compressionType"]}
    }
    return {"metadata": restated, "assume_metadata": True}


def _level_of_parent(address: Address, attributes: Attributes) -> Level | None:
    """Where a level that does not say itself where its voxels lie is put by the group that holds it."""
    if {"transform", "pixelResolution", "resolution"} & set(attributes):
        return None
    with suppress(SourceError):  # a group in disorder takes nothing from its arrays
        group = metadata.read_document(address.parent / _ATTRIBUTES) or {}
        if "multiscales" in group:
            levels = _cosem_levels(address.parent, group)
            return next((level for level in levels if level.name == address.name), None)
        if numbered := re.fullmatch(r"s(\d{1,2})", address.name):
            return _level(address, address.name, attributes, group, int(numbered[1]))
    return None


def _cosem_levels(address: Address, group: Attributes) -> list[Level]:
    where = f"{address / _ATTRIBUTES}: multiscales"
    first, *_ = metadata.items(group["multiscales"], where)
    found = []
    for item in metadata.items(metadata.mapping(first, where).get("datasets"), f"{where}.datasets"):
        attributes = metadata.mapping(item, where)
        path = metadata.inner_path(attributes.get("path"), f"{where}.path")
        if "transform" not in attributes:
            attributes = metadata.read_document(address / path / _ATTRIBUTES) or {}
        found.append(_level(address / path, path, attributes, {}, 0))
    return found


def _numbered_levels(address: Address, group: Attributes) -> list[Level]:
    """Levels s0, s1, ..., here or where bigdataviewer puts them: in the first time point of a setup."""
    if metadata.read_document(address / "timepoint0" / "s0" / _ATTRIBUTES) is not None:
        address = address / "timepoint0"
        group = {**group, **(metadata.read_document(address / _ATTRIBUTES) or {})}
    found: list[Level] = []
    while len(found) < metadata.MAX_LEVELS:
        name = f"s{len(found)}"
        attributes = metadata.read_document(address / name / _ATTRIBUTES)
        if attributes is None:
            break
        found.append(_level(address / name, name, attributes, group, len(found)))
    return found


def _level(address: Address, name: str, attributes: Attributes, group: Attributes, index: int) -> Level:
    """The level in its place: its own attributes first, then those of its group."""
    where = str(address / _ATTRIBUTES)
    if "transform" in attributes:
        transform = metadata.mapping(attributes["transform"], f"{where}: transform")
        return _cosem_level(address, name, transform, f"{where}: transform")
    resolution, unit = _resolution({**group, **attributes}, where)
    factors = _factors(attributes, group, index, where)
    size = [r * f * (unit or 1) for r, f in zip(resolution, factors, strict=True)]
    corner = ORIGIN
    if "offset" in group:  # paintera's, in the unit of its resolution
        offset = metadata.lengths(group["offset"], f"{where}: offset of the group", 3)
        corner = zyx_of([o * (unit or 1) for o in offset[::-1]])
    return Level(name, N5Array(address), zyx_of(size[::-1]), corner, is_in_nm=unit is not None)


def _cosem_level(address: Address, name: str, transform: Attributes, where: str) -> Level:
    axes = [metadata.text(axis, where) for axis in metadata.items(transform.get("axes"), f"{where}.axes", 5)]
    if not {"z", "y", "x"} <= set(axes):
        raise SourceError(f"{where}.axes: found {metadata.listed(axes)}; z, y and x are needed")
    rank = len(axes)
    scale = metadata.sizes(transform.get("scale"), f"{where}.scale", rank)
    centre = metadata.lengths(transform.get("translate", [0] * rank), f"{where}.translate", rank)
    units = metadata.items(transform.get("units", [None] * rank), f"{where}.units", 5)
    if len(units) != rank:
        raise SourceError(f"{where} has {rank} axes, but {len(units)} units; one for each is needed")
    nm = [metadata.unit_nm(unit) for unit in units]
    return Level.from_centre(name, N5Array(address, axes[::-1]), axes, scale, centre, nm)


def _resolution(attributes: Attributes, where: str) -> tuple[Sequence[Fraction], Fraction | None]:
    """Voxel size of the finest level, x y z, and nm in its unit, where one is stated."""
    found = attributes.get("pixelResolution", attributes.get("resolution"))
    if found is None:
        return UNIT_VOXEL, None
    if isinstance(found, dict):
        unit = metadata.unit_nm(found.get("unit"))
        return metadata.sizes(found.get("dimensions"), f"{where}: pixelResolution", 3), unit
    return metadata.sizes(found, f"{where}: resolution", 3), None


def _factors(attributes: Attributes, group: Attributes, index: int, where: str) -> Sequence[Fraction]:
    """How many voxels of the finest level make one of this, x y z."""
    if "downsamplingFactors" in attributes:
        return metadata.sizes(attributes["downsamplingFactors"], f"{where}: downsamplingFactors", 3)
    for_all = group.get("downsamplingFactors", group.get("scales"))
    if for_all is None:
        return UNIT_VOXEL
    listed = metadata.items(for_all, f"{where}: downsamplingFactors of the group")
    if index >= len(listed):
        raise SourceError(
            f"{where}: its group states {len(listed)} downsamplingFactors, none for level {index}"
        )
    return metadata.sizes(listed[index], f"{where}: downsamplingFactors of the group", 3)
