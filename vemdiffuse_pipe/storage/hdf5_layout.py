"""What the axes of an HDF5 dataset are, and how large its voxels: as CREMI, ilastik and others say it.

axes     axistags (ilastik), labels, MATLAB's order; three without a name are z, y, x
size     resolution and offset, in nm where no unit is stated (CREMI); element_size_um; axistags, axis_units
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Nm
from vemdiffuse_pipe.storage import metadata

if TYPE_CHECKING:
    import h5py

_MAX_TEXT = 1 << 20
_MATLAB_AXES = "zxy"  # rows, columns, slices, stored backwards
_ONE = "1"  # an axis of length 1 without a name


@dataclass(frozen=True, slots=True)
class Layout:
    """`axes`: a letter for each stored axis; `size_nm`, `corner_nm`, zyx: None where not known."""

    axes: str
    n_channels: int
    size_nm: Nm | None
    corner_nm: Nm | None

    def zyx(self, stored: Sequence[int]) -> Zyx:
        """Counts along z, y and x."""
        z, y, x = (int(stored[self.axes.index(axis)]) for axis in "zyx")
        return z, y, x

    def stored_index(self, zyx: Sequence[int], channel: int) -> tuple[int, ...]:
        """The place of a voxel in the dataset."""
        at = {**dict(zip("zyx", zyx, strict=True)), "c": channel}
        return tuple(at.get(axis, 0) for axis in self.axes)

    def stored(self, box: Box, channel: int) -> tuple[slice | int, ...]:
        """What to read of the dataset for a box: the axes of space stay, in their order."""
        parts: dict[str, slice | int] = {**dict(zip("zyx", box.slices, strict=True)), "c": channel}
        return tuple(parts.get(axis, 0) for axis in self.axes)

    def to_zyx(self, voxels: NDArray[np.generic]) -> NDArray[np.generic]:
        """What was read, its axes in order."""
        space = [axis for axis in self.axes if axis in "zyx"]
        return np.ascontiguousarray(voxels.transpose([space.index(axis) for axis in "zyx"]))


def layout_of(dataset: h5py.Dataset, what: str) -> Layout:
    """Its axes and size. Raises SourceError where they are not certain."""
    tags = _axis_tags(dataset, what)
    axes = _axes(dataset, [str(tag.get("key", "")) for tag in tags], what)
    if any(axes.count(axis) != 1 for axis in "zyx") or axes.count("c") > 1:
        raise SourceError(f"{what} has axes {', '.join(axes)}; z, y and x are needed, and c at most")
    other = [
        f"{n} along {axis}"
        for axis, n in zip(axes, dataset.shape, strict=True)
        if axis not in "zyxc" and n > 1
    ]
    if other:
        raise SourceError(f"{what} has {', '.join(other)}; one time point is needed, of axes z, y, x and c")
    n_channels = int(dataset.shape[axes.index("c")]) if "c" in axes else 1
    metadata.shape([int(n) for n in dataset.shape], f"{what}: shape")
    size, corner = _placed(dataset, axes, tags, what)
    return Layout(axes, n_channels, size, corner)


def _axes(dataset: h5py.Dataset, tagged: Sequence[str], what: str) -> str:
    """A letter for each axis, by what names them."""
    labels = [str(dimension.label).strip().lower() for dimension in dataset.dims]
    for names in (tagged, labels):
        if any(names):
            if len(names) != dataset.ndim or any(len(name) != 1 for name in names):
                raise SourceError(
                    f"{what} has {dataset.ndim} axes, which are named {names}; letters are needed"
                )
            return "".join(names).lower()
    if "MATLAB_class" in dataset.attrs and dataset.ndim == 3:
        return _MATLAB_AXES
    long = [i for i, n in enumerate(dataset.shape) if dataset.ndim == 3 or n > 1]
    if len(long) != 3:
        raise SourceError(
            f"{what} has shape {dataset.shape} and no names of its axes; three axes, z, y and x, are needed: "
            "name them by its attribute axistags, or by labels of its dimensions"
        )
    return "".join("zyx"[long.index(i)] if i in long else _ONE for i in range(dataset.ndim))


def _axis_tags(dataset: h5py.Dataset, what: str) -> list[dict[str, object]]:
    """vigra's description of each axis; nothing where there is none."""
    text = _attribute(dataset, "axistags", what)
    if text is None:
        return []
    where = f"{what}: axistags"
    tags = metadata.items(metadata.mapping(_json(text, where), where).get("axes"), where, metadata.MAX_RANK)
    return [metadata.mapping(tag, where) for tag in tags]


def _placed(
    dataset: h5py.Dataset, axes: str, tags: Sequence[dict[str, object]], what: str
) -> tuple[Nm | None, Nm | None]:
    """Voxel size and corner, in nm, zyx; None where they are not stated with a unit, or for other axes."""
    is_zyx = [axis for axis in axes if axis in "zyx"] == list("zyx")
    if not is_zyx:
        return None, None  # whether numbers follow the stored axes or not is nowhere said
    if (size := _three(dataset, "resolution", what)) is not None:
        unit = _unit(dataset, what)
        if unit is None or (size_nm := _nm(size, unit)) is None:
            return None, None
        offset = _three(dataset, "offset", what)
        z, y, x = (o * unit for o in offset) if offset else (Fraction(0),) * 3
        return size_nm, (z, y, x)
    if (size := _three(dataset, "element_size_um", what)) is not None:
        return _nm(size, Fraction(1000)), None
    return _size_by_tags(dataset, axes, tags, what), None


def _size_by_tags(
    dataset: h5py.Dataset, axes: str, tags: Sequence[dict[str, object]], what: str
) -> Nm | None:
    """The resolution in ilastik's axistags, in the units of its axis_units."""
    units = _json(_attribute(dataset, "axis_units", what) or "{}", f"{what}: axis_units")
    named = units if isinstance(units, dict) else {}
    sizes = []
    for axis in "zyx" if tags else "":
        number, unit = tags[axes.index(axis)].get("resolution"), metadata.unit_nm(named.get(axis))
        if unit is None or not isinstance(number, int | float):
            return None
        sizes.append(metadata.number(number, f"{what}: axistags") * unit)
    return _nm(sizes, Fraction(1)) if sizes else None


def _unit(dataset: h5py.Dataset, what: str) -> Fraction | None:
    """Nanometres in the unit of `resolution`: nm where nothing is said, as in CREMI's files."""
    for key in ("units", "unit"):
        if (unit := _attribute(dataset, key, what)) is not None:
            return metadata.unit_nm(unit)
    return Fraction(1)


def _three(dataset: h5py.Dataset, key: str, what: str) -> list[Fraction] | None:
    """An attribute of three numbers, exact as they are written; None where it is no such thing."""
    if key not in dataset.attrs or dataset.attrs.get_id(key).shape != (3,):
        return None
    values = np.asarray(dataset.attrs[key])
    if values.dtype.kind not in "iuf":
        return None
    return [metadata.number(float(str(value)), f"{what}: {key}") for value in values]


def _nm(size: Sequence[Fraction], unit_nm: Fraction) -> Nm | None:
    z, y, x = (length * unit_nm for length in size)
    is_length = min(z, y, x) >= metadata.MIN_VOXEL_NM and max(z, y, x) <= metadata.MAX_LENGTH_NM
    return (z, y, x) if is_length else None


def _attribute(dataset: h5py.Dataset, key: str, what: str) -> str | None:
    """An attribute that is text, or the first of several that are the same; None where there is none."""
    if key not in dataset.attrs:
        return None
    found = dataset.attrs.get_id(key)
    if found.get_storage_size() > _MAX_TEXT:
        raise SourceError(f"{what}: its attribute {key} has {found.get_storage_size()} bytes; it is no text")
    values = np.atleast_1d(np.asarray(dataset.attrs[key], dtype=object)).ravel().tolist()
    texts = {v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values}
    return texts.pop() if len(texts) == 1 else "several"


def _json(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where} is not JSON: {error}") from None
