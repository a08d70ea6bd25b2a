"""What a volume is, from its metadata; and, when asked for, a picture of it and a scan of its sections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TypedDict

import numpy as np

from vemdiffuse_pipe.config import NanPolicy
from vemdiffuse_pipe.errors import AbsentLevelError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Nm, exact_nm
from vemdiffuse_pipe.storage import open_source, source_address
from vemdiffuse_pipe.storage.levels import UNIT_VOXEL, Level, Reader, Volume, zyx_of
from vemdiffuse_pipe.storage.section_names import Numbering
from vemdiffuse_pipe.storage.source import find_volume
from vemdiffuse_pipe.survey.alignment import Alignment, measure_alignment
from vemdiffuse_pipe.survey.bad_sections import find_bad_sections, preflight_level
from vemdiffuse_pipe.survey.peek import Peek, draw
from vemdiffuse_pipe.survey.sections import BadSection
from vemdiffuse_pipe.volume import Source

ONE_READ: Zyx = (1, 1024, 1024)  # a typical read: a window of one section
MIN_PX = 512  # of the level that a picture is drawn from


class Chosen(TypedDict):
    """Arguments of `open_source` that choose voxels of a volume."""

    channel: int | None
    series: int | None
    pattern: str | None
    window: tuple[float, float] | None
    nan: NanPolicy


@dataclass(frozen=True, slots=True)
class LevelInfo:
    """A level of a volume. Shapes are voxels, zyx."""

    name: str
    """What `level=` takes."""
    shape: Zyx
    """Voxels of the level."""
    dtype: str
    """Of its voxels."""
    n_bytes: int
    """Bytes of all its voxels, decoded."""
    voxel_size_nm: Nm | None
    """Edges of a voxel; None where the metadata states none."""
    corner_nm: Nm | None
    """Corner of the first voxel in the world; None where the metadata states no voxel size."""
    chunk_shape: Zyx
    """What is decoded at once."""
    shard_shape: Zyx
    """What is one object in the store; the chunk where there are no shards."""
    codec: str
    """How chunks are encoded."""
    read_by: str
    """Whose code decodes them: tensorstore, or a slower one."""
    read_shape: Zyx
    """A typical read: 1024 x 1024 px of one section, as far as the level goes."""
    touched_shape: Zyx
    """What that read decodes: whole chunks."""
    touched_bytes: int
    """Bytes of that."""


@dataclass(frozen=True, slots=True)
class SectionScan:
    """Sections of a volume that hold no data."""

    level: str
    """Name of the coarse level that was read."""
    n_sections: int
    """Sections of the volume."""
    bad: tuple[BadSection, ...]
    """Sections that are black, constant, duplicated or missing."""

    @property
    def rejected_sections(self) -> list[int]:
        """What `rejected_sections` in a run file takes: the first and the last section cannot be bridged."""
        return [found.section for found in self.bad if 0 < found.section < self.n_sections - 1]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a volume is."""

    url: str
    """Its address in full."""
    format: str
    """OME-Zarr, N5, precomputed, TIFF, MRC or HDF5, with the version."""
    levels: tuple[LevelInfo, ...]
    """Its levels, as the metadata lists them, without those that are absent."""
    absent_levels: tuple[str, ...] = ()
    """Names of levels that the metadata declares and that are not there."""
    numbering: Numbering | None = None
    """Numbers of its files, where each is a section."""
    peek: Peek | None = None
    """The picture, where one was asked for."""
    sections: SectionScan | None = None
    """The scan of its sections, where one was asked for."""
    alignment: Alignment | None = None
    """How far neighbouring sections lie off each other, where the scan was asked for."""


def inspect(
    url: str,
    *,
    voxel_size_nm: Sequence[float | str] | None = None,
    level: str | None = None,
    channel: int | None = None,
    series: int | None = None,
    pattern: str | None = None,
    window: tuple[float, float] | None = None,
    nan: NanPolicy = "fail",
    peek: Path | None = None,
    sections: bool = False,
) -> Inspection:
    """What the volume at `url` is: format, levels, shapes, voxel sizes. Metadata only, unless more is asked.

    `peek`: also draw its middle section and a cut along z into this PNG file. `sections`: also read a coarse
    level through, for sections without data, and measure how sections lie on each other. The other arguments
    are those of `open_source`. Raises SourceError where there is no volume; with `peek` and `sections` also
    DataError and TransientError.

    Example:

        >>> from vemdiffuse_pipe import inspect
        >>> volume = inspect("stack.tif")
        >>> volume.format, volume.levels[0].shape
        ('tiff', (3, 48, 40))
    """
    volume = find_volume(source_address(url), series, pattern)
    given_nm = None if voxel_size_nm is None else exact_nm(voxel_size_nm)
    volume, levels, absent = _present(volume, channel)
    chosen_by = Chosen(channel=channel, series=series, pattern=pattern, window=window, nan=nan)
    picture = scan = alignment = None
    if peek is not None:
        is_asked_for = level is not None or (given_nm is not None and _is_stated(volume))
        chosen = _chosen(volume, level, given_nm) if is_asked_for else _coarse(levels)
        source = _opened(volume, chosen, given_nm, chosen_by)
        picture = draw(source, peek, is_size_known=given_nm is not None or _is_stated(volume))
    if sections:
        source = _opened(volume, _chosen(volume, level, given_nm), given_nm, chosen_by)
        scan, alignment = _scan(source), measure_alignment(source)
    infos = tuple(_info(found, reader) for found, reader in levels)
    return Inspection(volume.url, volume.format, infos, absent, volume.numbering, picture, scan, alignment)


def _present(
    volume: Volume, channel: int | None
) -> tuple[Volume, Sequence[tuple[Level, Reader]], tuple[str, ...]]:
    """The volume with the levels that are there, the same open, and the names of the others.

    Raises SourceError where none is there.
    """
    levels: list[tuple[Level, Reader]] = []
    errors: dict[str, AbsentLevelError] = {}
    for level in volume.levels:
        try:
            levels.append((level, level.array.open(channel=channel)))
        except AbsentLevelError as error:
            errors[level.name] = error
    if not levels:
        raise next(iter(errors.values()))
    return replace(volume, levels=[level for level, _ in levels]), levels, tuple(errors)


def _info(level: Level, reader: Reader) -> LevelInfo:
    whole = Box.of_shape(reader.shape)
    read = Box.of_shape(ONE_READ).intersect(whole)
    touched = read.whole(reader.chunk_shape).intersect(whole)
    itemsize = np.dtype(reader.dtype).itemsize
    return LevelInfo(
        name=level.name,
        shape=reader.shape,
        dtype=reader.dtype,
        n_bytes=prod(reader.shape) * itemsize,
        voxel_size_nm=level.voxel_size if level.is_in_nm else None,
        corner_nm=level.corner if level.is_in_nm else None,
        chunk_shape=reader.chunk_shape,
        shard_shape=reader.shard_shape,
        codec=reader.codec,
        read_by=reader.read_by,
        read_shape=read.shape,
        touched_shape=touched.shape,
        touched_bytes=touched.n_voxels * itemsize,
    )


def _is_stated(volume: Volume) -> bool:
    return all(level.is_in_nm for level in volume.levels)


def _chosen(volume: Volume, level: str | None, given_nm: Nm | None) -> Level:
    """The level that is asked for, or the finest; it may lack a voxel size."""
    return volume.choose(level, given_nm if given_nm is not None or _is_stated(volume) else UNIT_VOXEL)


def _opened(volume: Volume, level: Level, given_nm: Nm | None, chosen_by: Chosen) -> Source:
    """The level as a source. A size that is given is the finest level's, where none is stated."""
    size: Nm | None = None
    if not level.is_in_nm:
        finest = min(volume.levels, key=lambda v: prod(v.voxel_size)).voxel_size
        given = finest if given_nm is None else given_nm
        size = zyx_of([g * s / f for g, s, f in zip(given, level.voxel_size, finest, strict=True)])
    stated = None if size is None else [str(v) for v in size]
    return open_source(volume.url, voxel_size_nm=stated, level=level.name, **chosen_by)


def _coarse(levels: Sequence[tuple[Level, Reader]]) -> Level:
    """The coarsest level with 512 px along y or x; the finest where none has."""
    by_size = sorted(levels, key=lambda v: max(v[1].shape[1:]))
    return next((level for level, reader in by_size if max(reader.shape[1:]) >= MIN_PX), by_size[-1][0])


def _scan(source: Source) -> SectionScan:
    level = preflight_level(source).spec.level
    return SectionScan(level, source.spec.shape[0], tuple(find_bad_sections(source)))
