"""vemdiffuse inspect: what a volume is, from its metadata."""

from __future__ import annotations

from math import prod

import click
import numpy as np

from vemdiffuse_pipe.cli.options import channel_option, json_option, print_json, print_table
from vemdiffuse_pipe.cli.words import show_bytes, show_ratio, show_shape
from vemdiffuse_pipe.geometry.frame import show_nm
from vemdiffuse_pipe.storage.address import parse_address
from vemdiffuse_pipe.storage.levels import Level, Reader
from vemdiffuse_pipe.storage.source import find_volume


@click.command("inspect")
@click.argument("url")
@channel_option
@json_option
def command(url: str, channel: int | None, as_json: bool) -> None:
    """Print what a volume is: format, levels, shape, voxel size.

    \b
    Examples:
      vemdiffuse inspect stack.tif
      vemdiffuse inspect isotropic.zarr/em --json
    """
    volume = find_volume(parse_address(url))
    levels = [(level, level.array.open(channel=channel)) for level in volume.levels]
    if as_json:
        facts = [_facts(level, reader) for level, reader in levels]
        print_json({"url": volume.url, "format": volume.format, "levels": facts})
    else:
        print_table({volume.format: volume.url} | {f"level {v.name}": _in_words(v, r) for v, r in levels})


def _facts(level: Level, reader: Reader) -> dict[str, object]:
    return {
        "name": level.name,
        "shape": reader.shape,
        "dtype": reader.dtype,
        "voxel_size_nm": [float(v) for v in level.voxel_size] if level.is_in_nm else None,
        "corner_nm": [float(v) for v in level.corner] if level.is_in_nm else None,
        "chunk_shape": reader.chunk_shape,
        "shard_shape": reader.shard_shape,
    }


def _in_words(level: Level, reader: Reader) -> str:
    size = "of a size that is not stated: give --voxel-size Z Y X"
    if level.is_in_nm:
        size = f"of {show_nm(level.voxel_size)} nm: {show_ratio(level.voxel_size)}"
    n_bytes = prod(reader.shape) * np.dtype(reader.dtype).itemsize
    return (
        f"{show_shape(reader.shape)} voxels {size}\n"
        f"{reader.dtype}, {show_bytes(n_bytes)}, chunks of {show_shape(reader.chunk_shape)}"
    )
