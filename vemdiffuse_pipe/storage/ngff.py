"""OME-Zarr images (NGFF 0.1 to 0.6) and bare zarr arrays, as volumes.

A translation is the centre of voxel 0. Transformations apply in the order they are listed: those of the
level first, then, up to 0.5, those of the whole image. In 0.6 axes are those of a coordinate system, and what
the image lists leads from there to others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.storage import consolidated, metadata
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.axes import axis_letter
from vemdiffuse_pipe.storage.consolidated import Documents
from vemdiffuse_pipe.storage.levels import Level, StoredArray, Volume
from vemdiffuse_pipe.storage.zarr_array import ZarrArray

_VERSIONS = ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6")

Transform = tuple[list[Fraction], list[Fraction]]  # scale, then translation: one number an axis
Gathered = Callable[[], Documents]  # asked only where an array has no documents of its own


def find(address: Address) -> Volume | None:
    """The image or the array at `address`; None where there is no zarr metadata. Raises SourceError."""
    if (document := metadata.read_document(address / "zarr.json")) is not None:
        return _version_3(address, document, lambda: consolidated.of_version_3(document))
    if metadata.read_document(address / ".zarray") is not None:
        return _bare(address, "zarr v2", {})
    attributes = metadata.read_document(address / ".zattrs")
    if attributes is None and metadata.read_document(address / ".zgroup") is None:
        return None
    gathered = partial(consolidated.of_version_2, address)
    return _image(address, attributes or {}, address / ".zattrs", "0.4", gathered)


def find_consolidated(address: Address) -> Volume | None:
    """The image or the array at `address` by a document of this group, or of one that holds it.

    None where there is none. Raises SourceError.
    """
    documents = consolidated.around(address)
    if (document := documents.get("zarr.json")) is not None:
        return _version_3(address, document, lambda: documents)
    if ".zarray" in documents:
        return _bare(address, "zarr v2", documents)
    if ".zattrs" in documents or ".zgroup" in documents:
        return _image(address, documents.get(".zattrs", {}), address / ".zattrs", "0.4", lambda: documents)
    return None


def _version_3(address: Address, document: Mapping[str, object], gathered: Gathered) -> Volume:
    if document.get("node_type") == "array":
        return _bare(address, "zarr v3", {} if "consolidated_metadata" in document else gathered())
    where = address / "zarr.json"
    attributes = metadata.mapping(document.get("attributes", {}), f"{where}: attributes")
    return _image(
        address, metadata.mapping(attributes.get("ome", {}), f"{where}: ome"), where, "0.5", gathered
    )


def _bare(address: Address, name: str, documents: Documents) -> Volume:
    """One array: a level of the image that its parent is, if that names it, else a volume without a place.

    `documents`: what is known of an array that has none of its own.
    """
    level: Level | None = None
    with suppress(SourceError):  # a group in disorder takes nothing from its arrays
        image = _attributes_of_image(address.parent, consolidated.around(address.parent) if documents else {})
        if image is not None and "multiscales" in image:
            around = {f"{address.name}/{key}": document for key, document in documents.items()}
            levels = _image(address.parent, image, address.parent, "", lambda: around).levels
            level = next((one for one in levels if one.name == address.name), None)
    return Volume(str(address), name, [level or Level("0", ZarrArray(address, None, lambda: documents))])


def _attributes_of_image(address: Address, documents: Documents) -> Mapping[str, object] | None:
    document = metadata.read_document(address / "zarr.json") or documents.get("zarr.json")
    if document is None:
        return metadata.read_document(address / ".zattrs") or documents.get(".zattrs")
    attributes = metadata.mapping(document.get("attributes", {}), str(address))
    return metadata.mapping(attributes.get("ome", {}), str(address))


def _image(
    address: Address, attributes: Mapping[str, object], where: Address, version: str, gathered: Gathered
) -> Volume:
    if "multiscales" not in attributes:
        raise SourceError(
            f"{address} is a zarr group without an image; give the address of an image or an array in it "
            f"(it holds {metadata.contents(address)})"
        )
    first, *_ = metadata.items(attributes["multiscales"], f"{where}: multiscales")
    image = metadata.mapping(first, f"{where}: multiscales[0]")
    version = _version(attributes.get("version", image.get("version")), version, where)
    levels = _levels(address, image, f"{where}: multiscales[0]", version, gathered)
    return Volume(str(address), f"ome-zarr {version}", levels)


def _version(stated: object, usual: str, where: Address) -> str:
    """The version of NGFF, without what follows in drafts: 0.6.dev3 is 0.6."""
    found = re.match(r"\d+\.\d+", str(stated)) if isinstance(stated, str | float) else None
    if found is not None and found[0] not in _VERSIONS:
        raise SourceError(
            f"{where}: OME-Zarr of version {found[0]:.20}; {_VERSIONS[0]} to {_VERSIONS[-1]} are read"
        )
    return usual if found is None else found[0]


def _levels(
    address: Address, image: Mapping[str, object], where: str, version: str, gathered: Gathered
) -> Sequence[Level]:
    levels = []
    for placed in placed_levels(image, where, version):
        below = partial(_gathered_below, gathered, placed.path)
        axes = placed.axes if placed.units else None
        levels.append(placed.level(ZarrArray(address / placed.path, axes, below)))
    return levels


@dataclass(frozen=True, slots=True)
class PlacedLevel:
    """Where a level lies: numbers for each of `axes`, letters in stored order, in units of `units` nm.

    `units` is empty where the metadata names no axes, and has no numbers for them.
    """

    path: str
    axes: Sequence[str]
    units: Sequence[Fraction | None]
    scale: Sequence[Fraction]
    centre: Sequence[Fraction]

    def level(self, array: StoredArray) -> Level:
        """The level that `array` is."""
        if not self.units:
            return Level(self.path, array)
        return Level.from_centre(self.path, array, self.axes, self.scale, self.centre, self.units)


def placed_levels(image: Mapping[str, object], where: str, version: str = "0.4") -> Iterator[PlacedLevel]:
    """The levels of one of the `multiscales`, at least one. Raises SourceError."""
    listed = metadata.items(image.get("datasets"), f"{where}.datasets")
    datasets = [metadata.mapping(one, f"{where}.datasets") for one in listed]
    axes, units = _axes(_stated_axes(image, where), f"{where}.axes", datasets)
    of_image = None if "coordinateSystems" in image else image.get("coordinateTransformations")
    for dataset in datasets:
        path = metadata.inner_path(dataset.get("path"), f"{where}.datasets.path")
        steps = [dataset.get("coordinateTransformations"), of_image]
        scale, centre = _composed(steps, axes, f"{where}.coordinateTransformations of version {version}")
        known = units if steps[0] is not None else [None] * len(units)
        yield PlacedLevel(path, axes, known, scale, centre)


def _gathered_below(gathered: Gathered, path: str) -> Documents:
    return consolidated.below(gathered(), path)


def _stated_axes(image: Mapping[str, object], where: str) -> object:
    """The axes of an image; in 0.6 those of its first coordinate system, which its levels lead to."""
    if "axes" in image or "coordinateSystems" not in image:
        return image.get("axes")
    first, *_ = metadata.items(image["coordinateSystems"], f"{where}.coordinateSystems")
    return metadata.mapping(first, f"{where}.coordinateSystems").get("axes")


def _axes(
    value: object, where: str, datasets: Sequence[Mapping[str, object]]
) -> tuple[Sequence[str], Sequence[Fraction | None]]:
    """Letters of the axes as stored, and nm in their units.

    Images before 0.3 name none: they are the last of t, c, z, y, x, as many as a level has numbers for. Where
    it has none, no axes come out: the array itself knows how many it has.
    """
    if value is None:
        rank = _rank_of_scale(datasets)
        return "tczyx"[-rank:] if rank else "tczyx", [None] * rank
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in metadata.items(value, where, 5)]
    named = [metadata.text(axis.get("name"), where) for axis in axes]
    names = [axis_letter(name, axis.get("type")) for name, axis in zip(named, axes, strict=True)]
    if any(names.count(axis) != 1 for axis in "zyx"):
        raise SourceError(f"{where}: found {metadata.listed(named)}; a volume needs the axes z, y and x")
    return names, [metadata.unit_nm(axis.get("unit")) for axis in axes]


def _rank_of_scale(datasets: Sequence[Mapping[str, object]]) -> int:
    """How many axes a level's scale has numbers for, 0 where there is none that could be meant."""
    steps = datasets[0].get("coordinateTransformations")
    for step in steps if isinstance(steps, list) else []:
        scale = step.get("scale") if isinstance(step, dict) else None
        if isinstance(scale, list) and 3 <= len(scale) <= 5:
            return len(scale)
    return 0


def _composed(steps: Sequence[object], names: Sequence[str], where: str) -> Transform:
    """All transformations as one. What they say of axes other than z, y and x matters to nobody."""
    rank = len(names)
    scale, translation = [Fraction(1)] * rank, [Fraction(0)] * rank
    for step in _single(steps, where):
        match step.get("type"):
            case "scale":
                by = metadata.sizes(_of_space(step.get("scale"), names, 1), where, rank)
                scale = [a * b for a, b in zip(scale, by, strict=True)]
                translation = [a * b for a, b in zip(translation, by, strict=True)]
            case "translation":
                by = metadata.lengths(_of_space(step.get("translation"), names, 0), where, rank)
                translation = [a + b for a, b in zip(translation, by, strict=True)]
            case "identity":
                pass
            case other:
                raise SourceError(f"{where}: found {other!r:.40}; a scale or a translation is needed")
    return scale, translation


def _single(steps: Sequence[object], where: str) -> Iterator[Mapping[str, object]]:
    """The transformations of lists, one after the other; of 0.6 also those that a sequence holds."""
    for one in (one for many in steps if many for one in metadata.items(many, where)):
        step = metadata.mapping(one, where)
        if step.get("type") != "sequence":
            yield step
            continue
        for inner in metadata.items(step.get("transformations"), where):
            yield metadata.mapping(inner, where)


def _of_space(value: object, names: Sequence[str], neutral: int) -> object:
    """A list of numbers, those of other axes than z, y and x replaced: 0, null or NaN stand there."""
    if not isinstance(value, list) or len(value) != len(names):
        return value
    return [one if name in "zyx" else neutral for one, name in zip(value, names, strict=True)]
