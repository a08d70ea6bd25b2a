"""What an array of zarr says of itself: checked, and said again in the words that every reader knows.

Writers add keys (a thread count, a type size), leave some out, write numbers as text and words that JSON does
not have. Voxels depend on few of them: what they depend on is checked, the rest is left out, and readers
never see the document itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.storage import metadata
from vemdiffuse_pipe.storage.axes import axis_letters
from vemdiffuse_pipe.storage.fill import Fill, fill_of
from vemdiffuse_pipe.storage.zarr_codecs import restated_codecs, restated_compressor, restated_filters

Document = Mapping[str, object]

_TYPES = [
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "bfloat16",
]
_KNOWN_KEYS = frozenset(
    [
        "zarr_format",
        "node_type",
        "shape",
        "data_type",
        "chunk_grid",
        "chunk_key_encoding",
        "fill_value",
        "codecs",
        "attributes",
        "dimension_names",
        "storage_transformers",
        "consolidated_metadata",
    ]
)
_NAMES_OF_CHUNKS = {
    "zarr": ((".",), ("/",)),
    "zarr3": (("default", "/"), ("default", "."), ("v2", "."), ("v2", "/")),
}


@dataclass(frozen=True, slots=True)
class ZarrMetadata:
    """One array. `document`: what a reader is told, complete, in standard JSON.

    `axes`: what the array calls its axes, one letter each, () where it does not. `is_for_tensorstore`: False
    where it has a codec that tensorstore lacks.
    """

    driver: Literal["zarr", "zarr3"]
    document: Document
    axes: Sequence[str]
    dtype: str
    fill: Fill
    is_for_tensorstore: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis, as stored."""
        shape: Sequence[int] = self.document["shape"]  # type: ignore[assignment]
        return tuple(shape)

    @property
    def chunk_names(self) -> tuple[str, ...]:
        """How chunks are named: the separator, and in version 3 the encoding before it."""
        if self.driver == "zarr":
            return (str(self.document["dimension_separator"]),)
        encoding = metadata.mapping(self.document["chunk_key_encoding"], "chunk_key_encoding")
        configuration = metadata.mapping(encoding["configuration"], "chunk_key_encoding")
        return str(encoding["name"]), str(configuration["separator"])

    def with_other_names(self) -> Sequence[ZarrMetadata]:
        """The same array with its chunks under each of the other names that they may have."""
        others = [names for names in _NAMES_OF_CHUNKS[self.driver] if names != self.chunk_names]
        return [replace(self, document={**self.document, **_named(*names)}) for names in others]

    def key_of(self, index: Sequence[int]) -> str:
        """The name of the chunk at `index` of the grid of objects."""
        *encoding, separator = self.chunk_names
        parts = ["c"] if encoding == ["default"] else []
        return separator.join([*parts, *map(str, index)])


def version_2(document: Document, attributes: Document, where: str) -> ZarrMetadata:
    """An array by its `.zarray` and its `.zattrs`. Raises SourceError for what is hostile or not read."""
    shape = metadata.shape(document.get("shape"), f"{where}: shape")
    chunks = metadata.chunk_shape(document.get("chunks"), f"{where}: chunks", len(shape))
    dtype = document.get("dtype")
    if not isinstance(dtype, str) or re.fullmatch(r"[<>|][biuf]\d{1,2}", dtype) is None:
        raise SourceError(f"{where}: dtype is {dtype!r:.40}; numbers are read")
    compressor, is_known = restated_compressor(document.get("compressor"), where)
    filters = restated_filters(document.get("filters"), where)
    name = _numpy_name(dtype, where)
    fill = fill_of(document.get("fill_value"), name, none_is_zero=True)
    order, separator = document.get("order", "C"), document.get("dimension_separator", ".")
    if order not in ("C", "F"):
        raise SourceError(f"{where}: order is {order!r:.40}; C or F is needed")
    restated = {
        "zarr_format": 2,
        "shape": list(shape),
        "chunks": list(chunks),
        "dtype": dtype,
        "compressor": compressor,
        "filters": filters,
        "fill_value": fill.in_json,
        "order": order,
        "dimension_separator": separator if separator in (".", "/") else ".",
    }
    axes = axis_letters(attributes.get("_ARRAY_DIMENSIONS"), len(shape))
    return ZarrMetadata("zarr", restated, axes, name, fill, is_known and not filters)


def version_3(document: Document, where: str) -> ZarrMetadata:
    """An array by its `zarr.json`. Raises SourceError for what is hostile or not read."""
    if document.get("node_type") != "array":
        raise SourceError(f"{where}: node_type is {document.get('node_type')!r:.40}; an array is needed")
    _refuse_unknown_keys(document, where)
    shape = metadata.shape(document.get("shape"), f"{where}: shape")
    name = _named_type(document.get("data_type"), where)
    codecs, is_for_tensorstore = restated_codecs(document.get("codecs"), f"{where}: codecs", name, len(shape))
    is_sharded = codecs[-1]["name"] == "sharding_indexed"
    at_most = metadata.MAX_OBJECT if is_sharded else metadata.MAX_CHUNK
    grid = metadata.mapping(document.get("chunk_grid"), f"{where}: chunk_grid")
    configuration = metadata.mapping(grid.get("configuration"), f"{where}: chunk_grid")
    chunk = metadata.chunk_shape(
        configuration.get("chunk_shape"), f"{where}: chunk_grid: chunk_shape", len(shape), at_most
    )
    fill = fill_of(document.get("fill_value"), name, none_is_zero=False)
    restated = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        **_stated_names(document.get("chunk_key_encoding", "default"), where),
        "fill_value": fill.in_json,
        "codecs": codecs,
    }
    attributes = document.get("attributes")
    by_xarray = attributes.get("_ARRAY_DIMENSIONS") if isinstance(attributes, dict) else None
    axes = axis_letters(document.get("dimension_names"), len(shape)) or axis_letters(by_xarray, len(shape))
    return ZarrMetadata("zarr3", restated, axes, name, fill, is_for_tensorstore)


def _named(*names: str) -> dict[str, object]:
    """The part of a document that says how chunks are named."""
    if len(names) == 1:
        return {"dimension_separator": names[0]}
    encoding, separator = names
    return {"chunk_key_encoding": {"name": encoding, "configuration": {"separator": separator}}}


def _stated_names(value: object, where: str) -> dict[str, object]:
    stated = (
        {"name": value} if isinstance(value, str) else metadata.mapping(value, f"{where}: chunk_key_encoding")
    )
    name, configuration = stated.get("name"), stated.get("configuration")
    if name not in ("default", "v2"):
        raise SourceError(f"{where}: chunk_key_encoding is {name!r:.40}; default and v2 are read")
    usual = "/" if name == "default" else "."
    separator = configuration.get("separator", usual) if isinstance(configuration, dict) else usual
    return _named(str(name), separator if separator in (".", "/") else usual)


def _refuse_unknown_keys(document: Document, where: str) -> None:
    """Version 3 says so: a key that is not known must be understood, unless it says that it need not be."""
    for key, value in document.items():
        is_optional = isinstance(value, dict) and value.get("must_understand") is False
        if key not in _KNOWN_KEYS and not is_optional:
            raise SourceError(
                f"{where}: {key!r:.80} is no key of zarr 3 that we know; the volume may need it"
            )
    if document.get("storage_transformers"):
        raise SourceError(f"{where}: storage_transformers are not read")


def _named_type(value: object, where: str) -> str:
    name = value.get("name") if isinstance(value, dict) and not value.get("configuration") else value
    if not isinstance(name, str) or name not in _TYPES:
        raise SourceError(f"{where}: data_type is {name!r:.40}; {metadata.listed(_TYPES[:8])} are read")
    return name


def _numpy_name(dtype: str, where: str) -> str:
    try:
        return np.dtype(dtype).name
    except TypeError:
        raise SourceError(f"{where}: dtype is {dtype!r}, which is no type of numbers") from None
