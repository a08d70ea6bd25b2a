"""vemdiffuse inspect: what a volume is, from its metadata; and, when asked for, a look at its voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import prod
from pathlib import Path

import click
import numpy as np

from vemdiffuse_pipe.cli.format import show_bytes, show_count, show_ratio, show_shape
from vemdiffuse_pipe.cli.options import json_option, print_json, print_table, source_options
from vemdiffuse_pipe.cli.outcome import MAX_LISTED
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Nm, exact_nm, show_nm
from vemdiffuse_pipe.storage import open_source, source_address
from vemdiffuse_pipe.storage.levels import UNIT_VOXEL, Level, Reader, Volume, zyx_of
from vemdiffuse_pipe.storage.source import find_volume
from vemdiffuse_pipe.volume import Source

ONE_READ: Zyx = (1, 1024, 1024)
MIN_PX = 512  # of the level that --peek draws

Rows = dict[str, str]
Facts = dict[str, object]
Window = tuple[float, float]
Opened = Sequence[tuple[Level, Reader]]


@click.command("inspect")
@click.argument("url")
@source_options
@click.option("--peek", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw two views of it.")
@click.option("--sections", is_flag=True, help="Look for black, constant, duplicated and missing sections.")
@json_option
def command(
    url: str,
    voxel_size_nm: tuple[float, float, float] | None,
    level: str | None,
    channel: int | None,
    window: Window | None,
    peek: Path | None,
    sections: bool,
    as_json: bool,
) -> None:
    """Print what a volume is: format, levels, shape, voxel size.

    URL may be a name that `vemdiffuse datasets` lists. Of each level it says what one read decodes, since
    chunks are decoded whole. --peek draws the middle section and an xz cut, from the coarsest level that
    still has 512 pixels; --sections reads a coarse level through, and prints a line for the run file.

    \b
    Examples:
      vemdiffuse inspect stack.tif
      vemdiffuse inspect isotropic.zarr/em --json
      vemdiffuse inspect stack.tif --voxel-size 50 4.6 4.6 --peek stack.png
      vemdiffuse inspect stack.tif --sections
    """
    volume = find_volume(source_address(url))
    given_nm = None if voxel_size_nm is None else exact_nm(voxel_size_nm)
    levels = [(found, found.array.open(channel=channel)) for found in volume.levels]
    facts: Facts = {"url": volume.url, "format": volume.format, "levels": [_facts(*v) for v in levels]}
    rows: Rows = {volume.format: volume.url} | {f"level {v.name}": _in_words(v, r) for v, r in levels}
    if peek is not None:
        is_asked_for = level is not None or (given_nm is not None and _is_stated(volume))
        drawn = _chosen(volume, level, given_nm) if is_asked_for else _coarse(levels)
        is_size_known = given_nm is not None or _is_stated(volume)
        source = _opened(volume, drawn, given_nm, channel, window)
        facts["peek"], rows["peek"] = _peek(source, peek, is_size_known=is_size_known)
    if sections:
        source = _opened(volume, _chosen(volume, level, given_nm), given_nm, channel, window)
        facts["sections"], rows["sections"] = _sections(source)
    print_json(facts) if as_json else print_table(rows)


def _facts(level: Level, reader: Reader) -> Facts:
    return {
        "name": level.name,
        "shape": reader.shape,
        "dtype": reader.dtype,
        "bytes": _bytes(reader.shape, reader),
        "voxel_size_nm": [float(v) for v in level.voxel_size] if level.is_in_nm else None,
        "corner_nm": [float(v) for v in level.corner] if level.is_in_nm else None,
        "chunk_shape": reader.chunk_shape,
        "shard_shape": reader.shard_shape,
        "codec": reader.codec,
        "one_read": {
            "shape": _one_read(reader).shape,
            "touched_shape": _touched(reader).shape,
            "touched_bytes": _bytes(_touched(reader).shape, reader),
        },
    }


def _in_words(level: Level, reader: Reader) -> str:
    size = "of a size that is not stated: give --voxel-size Z Y X"
    if level.is_in_nm:
        size = f"of {show_nm(level.voxel_size)} nm: {show_ratio(level.voxel_size)}"
    shards = f", shards of {show_shape(reader.shard_shape)}"
    touched = _touched(reader).shape
    return (
        f"{show_shape(reader.shape)} voxels {size}\n"
        f"{reader.dtype}, {show_bytes(_bytes(reader.shape, reader))}, {reader.codec}, chunks of "
        f"{show_shape(reader.chunk_shape)}{shards if reader.shard_shape != reader.chunk_shape else ''}\n"
        f"a read of {show_shape(_one_read(reader).shape)} touches {show_shape(touched)}: "
        f"{show_bytes(_bytes(touched, reader))}"
    )


def _one_read(reader: Reader) -> Box:
    """What a typical read is, as far as the level goes: a window of one section."""
    return Box.of_shape(ONE_READ).intersect(Box.of_shape(reader.shape))


def _touched(reader: Reader) -> Box:
    return _one_read(reader).whole(reader.chunk_shape).intersect(Box.of_shape(reader.shape))


def _bytes(shape: Zyx, reader: Reader) -> int:
    return prod(shape) * np.dtype(reader.dtype).itemsize


def _is_stated(volume: Volume) -> bool:
    return all(level.is_in_nm for level in volume.levels)


def _chosen(volume: Volume, level: str | None, given_nm: Nm | None) -> Level:
    """The level that is asked for, or the finest; that no size is stated does not matter here."""
    return volume.choose(level, given_nm if given_nm is not None or _is_stated(volume) else UNIT_VOXEL)


def _opened(
    volume: Volume, level: Level, given_nm: Nm | None, channel: int | None, window: Window | None
) -> Source:
    """The level to look at. A size that is given is the finest level's, where none is stated."""
    size: Nm | None = None
    if not level.is_in_nm:
        finest = min(volume.levels, key=lambda v: prod(v.voxel_size)).voxel_size
        given = finest if given_nm is None else given_nm
        size = zyx_of([g * s / f for g, s, f in zip(given, level.voxel_size, finest, strict=True)])
    stated = None if size is None else [str(v) for v in size]
    return open_source(volume.url, voxel_size_nm=stated, level=level.name, channel=channel, window=window)


def _coarse(levels: Opened) -> Level:
    """The coarsest level with 512 px along y or x; the finest where none has."""
    by_size = sorted(levels, key=lambda v: max(v[1].shape[1:]))
    return next((level for level, reader in by_size if max(reader.shape[1:]) >= MIN_PX), by_size[-1][0])


def _peek(source: Source, file: Path, *, is_size_known: bool) -> tuple[Facts, str]:
    from vemdiffuse_pipe.cli.peek import draw

    drawn = draw(source, file, is_size_known=is_size_known)
    facts: Facts = {
        "file": str(file),
        "level": source.spec.level,
        "decoded_bytes": drawn.decoded_bytes,
        "section": {"start": drawn.section.start, "stop": drawn.section.stop},
        "cut": {"start": drawn.cut.start, "stop": drawn.cut.stop},
    }
    return facts, (
        f"{file}: section {drawn.section} and cut {drawn.cut} of level {source.spec.level}, "
        f"{show_bytes(drawn.decoded_bytes)} decoded"
    )


def _sections(source: Source) -> tuple[Facts, str]:
    from vemdiffuse_pipe.survey.bad_sections import find_bad_sections, preflight_level

    level, n_sections = preflight_level(source).spec.level, source.spec.shape[0]
    bad = find_bad_sections(source)
    rejected = [found.section for found in bad if 0 < found.section < n_sections - 1]
    facts: Facts = {"level": level, "bad": [asdict(b) for b in bad], "rejected_sections": rejected}
    lines = [f"{len(bad)} of {show_count(n_sections)} are bad, by level {level}"]
    lines += [
        f"section {b.section}: {b.reason}{'' if b.of is None else f' of {b.of}'}" for b in bad[:MAX_LISTED]
    ]
    if len(bad) > MAX_LISTED:
        lines.append(f"and {show_count(len(bad) - MAX_LISTED)} more; --json lists them all")
    return facts, "\n".join(lines + ([f"rejected_sections = {rejected}"] if rejected else []))
