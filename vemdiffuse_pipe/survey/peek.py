"""Two views of a volume, beside each other: the middle section, and a cut along z."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from vemdiffuse_pipe.errors import ConfigError, SourceError
from vemdiffuse_pipe.evaluation.picture import picture
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.volume import Source, VolumeSpec, Voxels

MAX_BYTES = 64 << 20  # decoded, for both views
MAX_PX = 2048  # along a side of a view


@dataclass(frozen=True, slots=True)
class Peek:
    """The picture that was drawn of a volume."""

    file: Path
    """Where it was written."""
    level: str
    """Name of the level that was read."""
    section: Box
    """The middle section, in voxels of the level."""
    cut: Box
    """The cut along z, in voxels of the level."""
    decoded_bytes: int
    """Bytes that were decoded for both."""


def draw(source: Source, file: Path, *, is_size_known: bool) -> Peek:
    """Write a PNG of the middle section and of an xz cut through its middle, z downwards.

    At most 64 MB are decoded and 2048 px drawn along a side: what is larger is cut around its middle. The
    cut has the proportions of the tissue where the voxel size is known. Raises SourceError where one chunk
    is larger than that, ConfigError where `file` cannot be written, DataError or TransientError.
    """
    spec = source.spec
    section = _largest(spec, _sections(spec), MAX_BYTES // 2)
    cut = _largest(spec, _cuts(spec, section), MAX_BYTES - decoded_bytes(spec, section))
    z, y = section.start[0], cut.start[1]
    note = "" if is_size_known else ", voxel size not stated"
    panels = {
        f"xy, section {z} of {spec.shape[0]}": source.read(section)[0],
        f"xz at y = {y}, z downwards{note}": _stretched(source.read(cut)[:, 0], aspect(spec)),
    }
    try:
        picture(panels, scale=1).save(file, format="PNG")
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}") from error
    decoded = sum(decoded_bytes(spec, box) for box in (section, cut))
    return Peek(file, spec.level, section, cut, decoded)


def decoded_bytes(spec: VolumeSpec, box: Box) -> int:
    """Bytes that are decoded to read `box`: its chunks, whole."""
    return prod(box.whole(spec.chunk_shape).intersect(spec.frame.box).shape) * np.dtype(spec.dtype).itemsize


def aspect(spec: VolumeSpec) -> float:
    """How many voxels along x are as long as one along z."""
    z, _, x = spec.frame.voxel_size_nm
    return float(z / x)


def _sections(spec: VolumeSpec) -> Iterator[Box]:
    """The middle section, whole, then ever smaller parts of it around its middle."""
    _, ny, nx = spec.shape
    for side in _halved(min(MAX_PX, max(ny, nx))):
        yield _around_middle(spec, (1, side, side))


def _cuts(spec: VolumeSpec, section: Box) -> Iterator[Box]:
    """Cuts as wide as the section that is drawn and at most as tall, ever less deep."""
    _, height, width = section.shape
    for depth in _halved(min(spec.shape[0], max(1, round(max(height, width) / aspect(spec))))):
        yield _around_middle(spec, (depth, 1, width))


def _halved(n: int) -> Iterator[int]:
    while n:
        yield n
        n //= 2


def _around_middle(spec: VolumeSpec, shape: tuple[int, int, int]) -> Box:
    z, y, x = (min(a, n) for a, n in zip(shape, spec.shape, strict=True))
    nz, ny, nx = spec.shape
    return Box.of_shape((z, y, x), ((nz - z) // 2, (ny - y) // 2, (nx - x) // 2))


def _largest(spec: VolumeSpec, boxes: Iterator[Box], max_bytes: int) -> Box:
    """The first box that decodes no more than `max_bytes`."""
    for box in boxes:
        if decoded_bytes(spec, box) <= max_bytes:
            return box
    chunk = prod(spec.chunk_shape) * np.dtype(spec.dtype).itemsize
    raise SourceError(
        f"{spec.url}, level {spec.level}, has chunks of {chunk / 1e6:.0f} MB; a picture decodes at most "
        f"{MAX_BYTES / 1e6:.0f} MB: choose a coarser level with --level"
    )


def _stretched(cut: Voxels, by: float) -> Voxels:
    """The rows repeated, or left out, until there are `by` times as many, but never more than 2048."""
    rows = np.arange(min(MAX_PX, max(1, round(len(cut) * by)))) / by
    stretched: Voxels = cut[np.minimum(rows.astype(int), len(cut) - 1)]
    return stretched
