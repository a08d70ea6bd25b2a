"""Images of several levels: a bright block is found at its place in nm, at every level, in every format."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from vemdiffuse_pipe import Box, open_source
from vemdiffuse_pipe.config import OutputFormat
from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.geometry.box import Zyx
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.geometry.pyramid import finer_box
from vemdiffuse_pipe.running.levels.downsample import coarser
from vemdiffuse_pipe.storage.address import parse_address
from vemdiffuse_pipe.storage.image_levels import ImageLevels

FORMATS: tuple[OutputFormat, ...] = ("ome-zarr-0.5", "ome-zarr-0.4", "n5", "precomputed")
NM = Fraction(10)
SHAPE = (37, 70, 83)
CORNER: tuple[Fraction, ...] = (
    Fraction(-50),
    Fraction(70),
    Fraction(30),
)  # -5, 7, 3 voxels: odd, and negative
N_LEVELS = 3
BRIGHT_NM = ((80, 240), (240, 400), (400, 560))  # z, y, x: whole voxels of level 2, counted from 0 nm


def image(folder: Path, output_format: OutputFormat, **more: object) -> ImageLevels:
    z, y, x = CORNER
    chunk: Zyx = (16, 16, 16)
    sharded = output_format in ("ome-zarr-0.5", "precomputed")
    return ImageLevels(
        address=parse_address(folder / "em"),
        own_folder=parse_address(folder / "em" / ".vemdiffuse"),
        name="em",
        output_format=output_format,
        frame=Frame(SHAPE, (NM, NM, NM), (z, y, x)),
        chunk_shape=chunk,
        shard_shape=(32, 32, 32) if sharded else chunk,
        **more,  # type: ignore[arg-type]
    )


def write_level(made: ImageLevels, level: int, voxels: np.ndarray) -> None:
    made.prepare_level(level)
    stored = made.open_level(level)
    shards = BlockGrid(made.level_frame(level).shape, made.level_shards(level))
    for index in range(shards.n_blocks):
        box = shards.box(index)
        stored.writer.write(box, voxels[box.slices])
    assert (stored.reader.read(Box.of_shape(voxels.shape)) == voxels).all()


def write_pyramid(made: ImageLevels, voxels: np.ndarray) -> list[np.ndarray]:
    levels = [voxels]
    write_level(made, 0, voxels)
    for level in range(1, N_LEVELS):
        made.publish(level)
        z, y, x = (first >> (level - 1) for first in made.start)
        levels.append(coarser(levels[-1], "mean", start=(z, y, x)))
        write_level(made, level, levels[-1])
    made.publish(N_LEVELS)
    return levels


def volume_with_a_bright_block() -> np.ndarray:
    voxels = np.full(SHAPE, 20, np.uint8)
    spans = zip(BRIGHT_NM, CORNER, strict=True)
    voxels[tuple(slice(int((a - c) / NM), int((e - c) / NM)) for (a, e), c in spans)] = 220
    return voxels


@pytest.mark.parametrize("output_format", FORMATS)
def test_a_bright_block_lies_at_its_nanometres_at_every_level(
    tmp_path: Path, output_format: OutputFormat
) -> None:
    made = image(tmp_path, output_format)
    levels = write_pyramid(made, volume_with_a_bright_block())
    for level in range(N_LEVELS):
        size = float(NM) * 2**level
        source = open_source(str(made.address), voxel_size_nm=(size, size, size))
        voxels = source.read(source.spec.frame.box)
        assert source.spec.n_levels == N_LEVELS
        assert source.spec.frame == made.level_frame(level)
        assert (voxels == levels[level]).all()
        where = [np.unique(axis) for axis in np.nonzero(voxels >= 120)]
        corner = source.spec.frame.corner_nm
        found = [
            (float(c) + w[0] * size, float(c) + (w[-1] + 1) * size)
            for w, c in zip(where, corner, strict=True)
        ]
        # The other formats count cells from the corner of the volume: an edge may lie within one.
        tolerance = 0 if output_format == "precomputed" else size / 2
        assert np.abs(np.subtract(found, BRIGHT_NM)).max() <= tolerance


@pytest.mark.parametrize("output_format", FORMATS)
def test_an_image_names_no_level_that_is_not_complete(tmp_path: Path, output_format: OutputFormat) -> None:
    made = image(tmp_path, output_format)
    voxels = volume_with_a_bright_block()
    write_level(made, 0, voxels)
    made.publish(1)
    made.prepare_level(1)
    assert open_source(str(made.address)).spec.n_levels == 1
    with pytest.raises(SourceError, match="20"):
        open_source(str(made.address), voxel_size_nm=(20, 20, 20))


@pytest.mark.parametrize("start", [(0, 0, 0), (1, 0, 1), (-3, 5, 2)])
def test_boxes_of_a_level_cover_the_level_below_once(start: Zyx) -> None:
    covered = np.zeros(SHAPE, np.uint8)
    shape = coarser(covered, "mean", start=start).shape
    cells = BlockGrid((shape[0], shape[1], shape[2]), (5, 7, 9))
    for index in range(cells.n_blocks):
        covered[finer_box(cells.box(index), SHAPE, start).slices] += 1
    assert (covered == 1).all()
