"""handoff.json: what an output holds, for the programs and people that take it on. One file, in the output.

Nothing in it is absolute: a folder that is moved, or put on a store, is still described by it. Lengths are
exact text ("50/11"), because 4.5454... nm is no decimal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Literal

import numpy as np
import xxhash
from pydantic import BaseModel, ConfigDict, Field

from vemdiffuse_pipe.config import Json
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.geometry.plane_groups import Provenance
from vemdiffuse_pipe.geometry.pyramid import level_frame
from vemdiffuse_pipe.records.receipts import Receipt
from vemdiffuse_pipe.records.shards import ShardSet
from vemdiffuse_pipe.volume import Voxels

NAME = "handoff.json"
MAX_BYTES = 1 << 26  # of one that is read
VERSION: Literal[1] = 1

MEANINGS = {
    "em": "grey levels; the best estimate of each voxel; measured planes as they were",
    "sample": "grey levels; one coherent draw, with the texture of measured planes",
    "uncertainty": "expected error in quarters of a grey level; 0 where measured",
    "sample_spread": "deviation of all draws in quarters of a grey level; 0 where measured",
}
LABELS = "labels; 0 is background"


class Level(BaseModel):
    """One resolution of an array."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str = Field(description="Of the array, relative to this file.")
    shape: tuple[int, int, int] = Field(description="Voxels, z y x.")
    voxel_size_nm: tuple[str, str, str] = Field(description="z y x, exact: '10' or '50/11'.")
    corner_nm: tuple[str, str, str] = Field(description="Corner of voxel 0, z y x, exact.")
    centre_nm: tuple[float, float, float] = Field(description="Centre of voxel 0, z y x.")
    checksum: str = Field(description="Over the checksums of all shards, whatever their order.")


class Array(BaseModel):
    """One array of the output."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str = Field(description="Of the image, relative to this file.")
    format: str = Field(description="ome-zarr-0.5, ome-zarr-0.4, n5 or precomputed.")
    dtype: str = Field(description="As numpy names it.")
    axes: tuple[str, str, str] = ("z", "y", "x")
    meaning: str = Field(description="What a value says.")
    levels: tuple[Level, ...] = Field(description="Finest first; only those that are complete.")


class Planes(BaseModel):
    """Neighbouring planes of one origin."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    first: int = Field(description="Plane of level 0.")
    stop: int = Field(description="One past the last plane.")
    origin: str = Field(description="measured, generated, bridged, restored or missing.")


class Exported(BaseModel):
    """How an export differs from the output that it was made from."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    start: tuple[int, int, int] = Field(description="First voxel of the output that was copied, z y x.")
    stop: tuple[int, int, int] = Field(description="One past the last.")
    encoding: str = Field(description="raw, jpeg, png or compressed_segmentation.")
    moved_nm: tuple[float, float, float] = Field(
        description="How far the corner moved to whole voxels, z y x."
    )
    largest_error: int = Field(description="Grey levels; 0 where lossless.")
    mean_error: float = Field(description="Grey levels; 0 where lossless.")
    n_compared: int = Field(description="Voxels that the two errors were measured on; 0 where lossless.")
    is_partial: bool = Field(description="True where blocks were missing: their voxels are 0.")


class Handoff(BaseModel):
    """What an output holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["vemdiffuse handoff"] = "vemdiffuse handoff"
    version: Literal[1] = VERSION
    is_complete: bool = Field(description="Whether every block is done.")
    arrays: dict[str, Array] = Field(description="By name.")
    planes: tuple[Planes, ...] = Field(description="Where each plane of level 0 comes from, ascending.")
    run: dict[str, object] = Field(description="Identity of the run: all that a voxel depends on.")
    digest: str = Field(description="Of `run`.")
    segment: str = Field(description="Which array to segment, and why.")
    trust: str = Field(description="What to believe, and what to look at twice.")
    readers: dict[str, str] = Field(description="How each reader opens it; OUTPUT is its address.")
    untested_readers: tuple[str, ...] = Field(description="Readers whose lines no test of ours runs.")
    exported: Exported | None = Field(default=None, description="Of an export; null for an output itself.")


def schema() -> dict[str, object]:
    """The JSON schema of handoff.json."""
    return Handoff.model_json_schema()


def encode(handoff: Handoff) -> bytes:
    """The file."""
    return (json.dumps(handoff.model_dump(mode="json"), indent=1) + "\n").encode()


def array_of(
    name: str, stored_format: str, frame: Frame, checksums: Sequence[str], level_names: Sequence[str]
) -> Array:
    """The description of an array: `frame` of level 0, one checksum and one folder name a level."""
    levels = [
        level_of(f"{name}/{level_name}", level_frame(frame, level), checksum)
        for level, (level_name, checksum) in enumerate(zip(level_names, checksums, strict=True))
    ]
    return Array(
        path=name,
        format=stored_format,
        dtype="uint8",
        meaning=meaning_of(name),
        levels=tuple(levels),
    )


def meaning_of(array: str) -> str:
    """What a value of that array says."""
    return MEANINGS.get(array, LABELS)


def planes_of(codes: Voxels) -> tuple[Planes, ...]:
    """Runs of planes of one origin; `codes`: (planes,) uint8, see `Provenance`."""
    runs, first = [], 0
    for code, members in groupby(codes.tolist()):
        stop = first + sum(1 for _ in members)
        runs.append(Planes(first=first, stop=stop, origin=_origin(code)))
        first = stop
    return tuple(runs)


def advice(arrays: Sequence[str], identity: Mapping[str, Json]) -> tuple[str, str]:
    """(what to segment, what to trust), in a sentence or two each."""
    segment = "em"
    why = "it errs least, voxel by voxel"
    other = "; a network that was trained on measured images may prefer sample, which has their texture"
    trust = (
        "Measured planes are what the microscope saw. Generated planes are drawn: nothing in them was seen. "
    )
    doubt = (
        "Look twice where uncertainty is high." if "uncertainty" in arrays else "This run has no uncertainty."
    )
    return f"{segment}: {why}{other if 'sample' in arrays else ''}", trust + doubt


def level_checksums(receipts: Iterator[Receipt], shards: BlockGrid, arrays: Sequence[str]) -> dict[str, str]:
    """One checksum an array, from what receipts say of each shard. Constant memory but for a bit a shard.

    It does not depend on the order of receipts, and a shard that was written twice counts once.
    """
    counted, sums = ShardSet(shards), dict.fromkeys(arrays, 0)
    for receipt in receipts:
        for i, shard in enumerate(receipt.shards):
            if shard in counted:
                continue
            counted.add(shard)
            for name in arrays:
                sums[name] += xxhash.xxh3_64_intdigest(f"{shard} {receipt.checksums[name][i]}".encode())
    return {name: f"{total % 2**64:016x}" for name, total in sums.items()}


def level_of(path: str, frame: Frame, checksum: str) -> Level:
    """The description of a level whose voxels lie in `frame`."""
    z, y, x = (float(c) for c in frame.centre_nm)
    dz, dy, dx = map(str, frame.voxel_size_nm)
    cz, cy, cx = map(str, frame.corner_nm)
    return Level(
        path=path,
        shape=frame.shape,
        voxel_size_nm=(dz, dy, dx),
        corner_nm=(cz, cy, cx),
        centre_nm=(z, y, x),
        checksum=checksum,
    )


def _origin(code: int) -> str:
    known = {int(member) for member in Provenance}
    return Provenance(code).name.lower() if code in known else f"unknown ({code})"


def measured_planes(codes: Voxels) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Indices of the planes that were measured."""
    return np.flatnonzero((codes == Provenance.MEASURED) | (codes == Provenance.MEASURED_PARTLY_FILLED))
