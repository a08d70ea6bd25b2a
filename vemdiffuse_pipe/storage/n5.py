"""N5 volumes. Axes are stored x, y, z, unless `axes` says otherwise; six ways of placing voxels are known.

COSEM           transform {axes, scale, translate, units}, axes by name; translate is the centre of voxel 0.
                In each array, or for all of them in the group's multiscales
n5-viewer       s0, s1, ...: pixelResolution {dimensions, unit}, x y z, times downsamplingFactors;
                every level has its corner at 0
bigdataviewer   setup0/timepoint0/s0, ...: resolution without a unit, times downsamplingFactors
paintera        painteraData, and data/s0, ...: the same in data/, with an offset in the same unit
OME-Zarr        multiscales of a group with axes and coordinateTransformations
plain           one array: pixelResolution, resolution and units, or nothing

axes, units and resolution have an item for each axis, in the order of dimensions: the fastest axis first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fractions import Fraction

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.storage import metadata, ngff
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.axes import axis_letter, axis_letters
from vemdiffuse_pipe.storage.levels import ORIGIN, UNIT_VOXEL, Level, Volume, zyx_of
from vemdiffuse_pipe.storage.n5_array import ATTRIBUTES, N5Array

Attributes = Mapping[str, object]


def find(address: Address) -> Volume | None:
    """The volume at `address`: one array, or a group of levels s0, s1, ... Raises SourceError.

    None where there are no N5 attributes, of a group or of its first level.
    """
    group = metadata.read_document(address / ATTRIBUTES)
    if group is not None and "painteraData" in group:
        address = address / "data"
        group = metadata.read_document(address / ATTRIBUTES)
    if group is not None and "dimensions" in group:
        levels = [_level_of_parent(address, group) or _level(address, "0", group, {}, 0)]
    elif group is not None and "multiscales" in group:
        levels = _listed_levels(address, group)
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


def _level_of_parent(address: Address, attributes: Attributes) -> Level | None:
    """Where a level that does not say itself where its voxels lie is put by the group that holds it."""
    if {"transform", "pixelResolution", "resolution"} & set(attributes):
        return None
    with suppress(SourceError):  # a group in disorder takes nothing from its arrays
        group = metadata.read_document(address.parent / ATTRIBUTES) or {}
        if "multiscales" in group:
            levels = _listed_levels(address.parent, group)
            return next((level for level in levels if level.name == address.name), None)
        if numbered := re.fullmatch(r"s(\d{1,2})", address.name):
            return _level(address, address.name, attributes, group, int(numbered[1]))
    return None


def _listed_levels(address: Address, group: Attributes) -> list[Level]:
    """The levels that `multiscales` lists, placed as COSEM does, as OME-Zarr does, or by themselves."""
    where = f"{address / ATTRIBUTES}: multiscales"
    first, *_ = metadata.items(group["multiscales"], where)
    image = metadata.mapping(first, where)
    if "axes" in image and "transform" not in _first_dataset(image, where):
        return _ome_levels(address, group, image, where)
    found = []
    for item in metadata.items(image.get("datasets"), f"{where}.datasets"):
        attributes = metadata.mapping(item, where)
        path = metadata.inner_path(attributes.get("path"), f"{where}.path")
        if "transform" not in attributes:
            attributes = metadata.read_document(address / path / ATTRIBUTES) or {}
        found.append(_level(address / path, path, attributes, {"axes": group.get("axes")}, 0))
    return found


def _first_dataset(image: Attributes, where: str) -> Attributes:
    first, *_ = metadata.items(image.get("datasets"), f"{where}.datasets")
    return metadata.mapping(first, f"{where}.datasets")


def _ome_levels(address: Address, group: Attributes, image: Attributes, where: str) -> list[Level]:
    levels = []
    for placed in ngff.placed_levels(image, where):
        array = N5Array(address / placed.path, _stored_order(group, placed.axes))
        levels.append(placed.level(array))
    return levels


def _stored_order(attributes: Attributes, axes: Sequence[str]) -> Sequence[str]:
    """Letters of the axes, fastest first, where a transformation lists `axes`.

    N5's own key decides, which counts as `dimensions` do. Else x is the fastest: some programs list axes as
    they are stored, x first, others as numpy counts them, x last. Raises SourceError for any other order.
    """
    if stated := axis_letters(attributes.get("axes"), len(axes)):
        return stated
    space = [axis for axis in axes if axis in ("z", "y", "x")]
    if space == ["x", "y", "z"]:
        return axes
    if space == ["z", "y", "x"]:
        return axes[::-1]
    raise SourceError(
        f"an N5 image lists its axes in the order {', '.join(axes)}, and nothing says whether the first is "
        "the fastest; state axes beside dimensions"
    )


def _numbered_levels(address: Address, group: Attributes) -> list[Level]:
    """Levels s0, s1, ..., here or where bigdataviewer puts them: in the first time point of a setup."""
    if metadata.read_document(address / "timepoint0" / "s0" / ATTRIBUTES) is not None:
        address = address / "timepoint0"
        group = {**group, **(metadata.read_document(address / ATTRIBUTES) or {})}
    found: list[Level] = []
    while len(found) < metadata.MAX_LEVELS:
        name = f"s{len(found)}"
        attributes = metadata.read_document(address / name / ATTRIBUTES)
        if attributes is None:
            break
        found.append(_level(address / name, name, attributes, group, len(found)))
    return found


def _level(address: Address, name: str, attributes: Attributes, group: Attributes, index: int) -> Level:
    """The level in its place: its own attributes first, then those of its group."""
    where = str(address / ATTRIBUTES)
    known = {**group, **attributes}
    if "transform" in attributes:
        transform = metadata.mapping(attributes["transform"], f"{where}: transform")
        return _cosem_level(address, name, known, transform, f"{where}: transform")
    axes = _stated_axes(known)
    resolution, units = _resolution(known, axes, where)
    factors = _factors(attributes, group, index, axes, where)
    size = [r * f * (u or 1) for r, f, u in zip(resolution, factors, units, strict=True)]
    corner = ORIGIN
    if "offset" in group:  # paintera's, in the unit of its resolution
        offset = metadata.lengths(group["offset"], f"{where}: offset of the group", 3)
        corner = zyx_of([o * (u or 1) for o, u in zip(offset[::-1], units[::-1], strict=True)])
    is_in_nm = all(unit is not None for unit in units)
    return Level(name, N5Array(address, axes), zyx_of(size[::-1]), corner, is_in_nm)


def _stated_axes(attributes: Attributes) -> Sequence[str] | None:
    """Letters of the axes, fastest first, as `axes` names them; None where it does not."""
    found = attributes.get("axes")
    return axis_letters(found, len(found) if isinstance(found, list) else 0) or None


def _cosem_level(address: Address, name: str, known: Attributes, transform: Attributes, where: str) -> Level:
    named = [metadata.text(axis, where) for axis in metadata.items(transform.get("axes"), f"{where}.axes", 5)]
    axes = [axis_letter(axis) for axis in named]
    if not axis_letters(named, len(named)):
        raise SourceError(f"{where}.axes: found {metadata.listed(named)}; z, y and x are needed")
    rank = len(axes)
    scale = metadata.sizes(transform.get("scale"), f"{where}.scale", rank)
    centre = metadata.lengths(transform.get("translate", [0] * rank), f"{where}.translate", rank)
    units = metadata.items(transform.get("units", [None] * rank), f"{where}.units", 5)
    if len(units) != rank:
        raise SourceError(f"{where} has {rank} axes, but {len(units)} units; one for each is needed")
    nm = [metadata.unit_nm(unit) for unit in units]
    array = N5Array(address, _stored_order(known, axes))
    return Level.from_centre(name, array, axes, scale, centre, nm)


def _resolution(
    attributes: Attributes, axes: Sequence[str] | None, where: str
) -> tuple[Sequence[Fraction], Sequence[Fraction | None]]:
    """Voxel size of the finest level, x y z, and nm in the unit of each, None where none is stated."""
    found: object = attributes.get("pixelResolution", attributes.get("resolution"))
    units: object = attributes.get("units")
    if found is None:
        return UNIT_VOXEL, [None] * 3
    if isinstance(found, dict):
        units = found.get("unit", units)
        found = found.get("dimensions")
    stated = units if isinstance(units, list) else [units] * 3
    if len(stated) < 3:
        raise SourceError(f"{where}: found {len(stated)} units; one for each axis is needed")
    nm = [metadata.unit_nm(unit) for unit in _of_space(stated, axes)]
    return metadata.sizes(_of_space(found, axes), f"{where}: resolution", 3), nm


def _of_space(values: object, axes: Sequence[str] | None) -> list[object]:
    """What a list with an item an axis has for x, y and z; the axes are x, y, z where none are named."""
    found = values if isinstance(values, list) else [values]
    letters = axes or "xyz"
    if len(found) < len(letters):
        letters = [axis for axis in letters if axis in ("x", "y", "z")]
    return [found[letters.index(axis)] for axis in "xyz"] if len(found) >= len(letters) else found


def _factors(
    attributes: Attributes, group: Attributes, index: int, axes: Sequence[str] | None, where: str
) -> Sequence[Fraction]:
    """How many voxels of the finest level make one of this, x y z."""
    if "downsamplingFactors" in attributes:
        own = _of_space(attributes["downsamplingFactors"], axes)
        return metadata.sizes(own, f"{where}: downsamplingFactors", 3)
    for_all = group.get("downsamplingFactors", group.get("scales"))
    if for_all is None:
        return UNIT_VOXEL
    listed = metadata.items(for_all, f"{where}: downsamplingFactors of the group")
    if index >= len(listed):
        raise SourceError(
            f"{where}: its group states {len(listed)} downsamplingFactors, none for level {index}"
        )
    return metadata.sizes(_of_space(listed[index], axes), f"{where}: downsamplingFactors of the group", 3)
