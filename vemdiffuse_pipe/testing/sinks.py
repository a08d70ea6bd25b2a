"""What every sink keeps: subclass `SinkConformance`, and provide an empty one."""

from __future__ import annotations

import numpy as np
import pytest

from vemdiffuse_pipe.errors import MisalignedWriteError, MissingDataError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.testing.doubles import position_coded
from vemdiffuse_pipe.testing.sources import random_boxes
from vemdiffuse_pipe.volume import Sink


def shards(sink: Sink) -> list[Box]:
    """The boxes of all shards of a sink, those at the edge cut."""
    grid = BlockGrid(sink.spec.shape, sink.spec.shard_shape)
    return [grid.box(i) for i in range(grid.n_blocks)]


class SinkConformance:
    """The claims, as tests. A subclass provides the fixture `sink`: empty, of more than one shard.

    >>> class TestMySink(SinkConformance):
    ...     @pytest.fixture
    ...     def sink(self, tmp_path: Path) -> Sink:
    ...         return MySink(tmp_path, shape=(11, 23, 37), shard_shape=(8, 16, 16))
    """

    def test_what_is_written_is_read_back(self, sink: Sink) -> None:
        """Shard by shard, in an order of no meaning, and by any box."""
        voxels = position_coded(sink.spec.shape)
        for box in reversed(shards(sink)):
            sink.write("em", box, voxels[box.slices])
            assert np.array_equal(sink.read("em", box), voxels[box.slices])
        for box in random_boxes(sink.spec.shape, 10):
            assert np.array_equal(sink.read("em", box), voxels[box.slices]), box

    def test_part_of_a_shard_is_refused_and_nothing_is_written(self, sink: Sink) -> None:
        """Whole shards only: no write has to read what is there."""
        whole = shards(sink)[0]
        z, y, x = whole.shape
        for shape in ((z - 1, y, x), (z, y - 1, x), (z, y, x - 1)):
            with pytest.raises(MisalignedWriteError):
                sink.write("em", Box.of_shape(shape), np.zeros(shape, np.uint8))
            with pytest.raises(MissingDataError):
                sink.read("em", whole)

    def test_what_was_not_written_is_missing(self, sink: Sink) -> None:
        """Missing is not black, in the same array and in the others."""
        first, *others = shards(sink)
        sink.write("em", first, position_coded(first.shape))
        for box in others:
            with pytest.raises(MissingDataError):
                sink.read("em", box)
        for array in sink.arrays:
            if array != "em":
                with pytest.raises(MissingDataError, match=array):
                    sink.read(array, first)

    def test_black_is_stored(self, sink: Sink) -> None:
        """Zeros are voxels too."""
        box = shards(sink)[0]
        sink.write("em", box, np.zeros(box.shape, np.uint8))
        assert not sink.read("em", box).any()

    def test_writing_again_replaces_what_was_there(self, sink: Sink) -> None:
        """A block that is done again is the same block."""
        box = shards(sink)[0]
        for voxels in (np.full(box.shape, 7, np.uint8), position_coded(box.shape)):
            sink.write("em", box, voxels)
            assert np.array_equal(sink.read("em", box), voxels)
