"""OME-Zarr images (NGFF 0.1 to 0.5) and bare zarr arrays, as volumes.

A translation is the centre of voxel 0. Transformations apply in the order they are listed: those of the
level first, then those of the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.storage import metadata
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.levels import Level, Volume
from vemdiffuse_pipe.storage.zarr_array import ZarrArray

_VERSIONS = ("0.1", "0.2", "0.3", "0.4", "0.5")

Transform = tuple[list[Fraction], list[Fraction]]  # scale, then translation: one number an axis


def find(address: Address) -> Volume | None:
    """The image or the array at `address`; None where there is no zarr metadata. Raises SourceError."""
    if (document := metadata.read_document(address / "zarr.json")) is not None:
        return _version_3(address, document)
    if metadata.read_document(address / ".zarray") is not None:
        return _bare(address, "zarr v2")
    attributes = metadata.read_document(address / ".zattrs")
    if attributes is None and metadata.read_document(address / ".zgroup") is None:
        return None
    return _image(address, attributes or {}, address / ".zattrs", "0.4")


def _version_3(address: Address, document: dict[str, object]) -> Volume:
    if document.get("node_type") == "array":
        return _bare(address, "zarr v3")
    where = address / "zarr.json"
    attributes = metadata.mapping(document.get("attributes", {}), f"{where}: attributes")
    return _image(address, metadata.mapping(attributes.get("ome", {}), f"{where}: ome"), where, "0.5")


def _bare(address: Address, name: str) -> Volume:
    """One array: a level of the image that its parent is, if that names it, else a volume without a place."""
    level: Level | None = None
    with suppress(SourceError):  # a group in disorder takes nothing from its arrays
        image = _attributes_of_image(address.parent)
        if image is not None and "multiscales" in image:
            levels = _image(address.parent, image, address.parent, "").levels
            level = next((one for one in levels if one.name == address.name), None)
    return Volume(str(address), name, [level or Level("0", ZarrArray(address))])


def _attributes_of_image(address: Address) -> dict[str, object] | None:
    document = metadata.read_document(address / "zarr.json")
    if document is None:
        return metadata.read_document(address / ".zattrs")
    attributes = metadata.mapping(document.get("attributes", {}), str(address))
    return metadata.mapping(attributes.get("ome", {}), str(address))


def _image(address: Address, attributes: dict[str, object], where: Address, version: str) -> Volume:
    if "multiscales" not in attributes:
        raise SourceError(
            f"{address} is a zarr group without an image; give the address of an image or an array in it "
            f"(it holds {metadata.contents(address)})"
        )
    first, *_ = metadata.items(attributes["multiscales"], f"{where}: multiscales")
    image = metadata.mapping(first, f"{where}: multiscales[0]")
    stated = attributes.get("version", image.get("version"))
    if isinstance(stated, str) and stated in _VERSIONS:
        version = stated
    return Volume(str(address), f"ome-zarr {version}", _levels(address, image, f"{where}: multiscales[0]"))


def _levels(address: Address, image: dict[str, object], where: str) -> Sequence[Level]:
    names, units = _axes(image.get("axes"), f"{where}.axes")
    levels = []
    for item in metadata.items(image.get("datasets"), f"{where}.datasets"):
        dataset = metadata.mapping(item, f"{where}.datasets")
        path = metadata.inner_path(dataset.get("path"), f"{where}.datasets.path")
        steps = [dataset.get("coordinateTransformations"), image.get("coordinateTransformations")]
        scale, centre = _composed(steps, len(names), f"{where}.coordinateTransformations")
        known = units if steps[0] is not None else [None] * len(units)
        levels.append(Level.from_centre(path, ZarrArray(address / path, names), names, scale, centre, known))
    return levels


def _axes(value: object, where: str) -> tuple[Sequence[str], Sequence[Fraction | None]]:
    """Names of the axes as stored, and nm in their units. Images before 0.3 name none: t, c, z, y, x."""
    if value is None:
        return "tczyx", [None] * 5
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in metadata.items(value, where, 5)]
    names = [metadata.text(axis.get("name"), where).lower() for axis in axes]
    if not {"z", "y", "x"} <= set(names) or len(set(names)) < len(names):
        raise SourceError(f"{where}: found {metadata.listed(names)}; a volume needs the axes z, y and x")
    return names, [metadata.unit_nm(axis.get("unit")) for axis in axes]


def _composed(steps: Sequence[object], rank: int, where: str) -> Transform:
    scale, translation = [Fraction(1)] * rank, [Fraction(0)] * rank
    listed = [one for many in steps if many for one in metadata.items(many, where)]
    for step in (metadata.mapping(one, where) for one in listed):
        match step.get("type"):
            case "scale":
                by = metadata.sizes(step.get("scale"), where, rank)
                scale = [a * b for a, b in zip(scale, by, strict=True)]
                translation = [a * b for a, b in zip(translation, by, strict=True)]
            case "translation":
                by = metadata.lengths(step.get("translation"), where, rank)
                translation = [a + b for a, b in zip(translation, by, strict=True)]
            case "identity":
                pass
            case other:
                raise SourceError(f"{where}: found {other!r:.40}; a scale or a translation is needed")
    return scale, translation
