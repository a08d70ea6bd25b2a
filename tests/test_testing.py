"""The doubles fail as they are asked to, and the conformance classes find what is wrong."""

import numpy as np
import pytest

from vemdiffuse_pipe.errors import CorruptDataError, MisalignedWriteError, MissingDataError, TransientError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.models.card import LINEAR
from vemdiffuse_pipe.models.interpolation import Interpolation
from vemdiffuse_pipe.testing import (
    VOXEL_SIZE_NM,
    ArraySource,
    Failure,
    FlakySource,
    SlowSource,
    position_coded,
)
from vemdiffuse_pipe.testing.models import ModelCase, ModelConformance
from vemdiffuse_pipe.testing.sinks import SinkConformance
from vemdiffuse_pipe.testing.sources import SourceConformance
from vemdiffuse_pipe.volume import VolumeSpec, ignore_hole

SHAPE = (5, 7, 11)


def test_voxels_hold_their_flat_index():
    assert (position_coded(SHAPE).ravel() == np.arange(5 * 7 * 11) % 251).all()


def test_array_source_gives_copies():
    source = ArraySource.of_shape(SHAPE)
    source.read(Box.of_shape(SHAPE))[...] = 0
    assert (source.read(Box((1, 2, 3), SHAPE)) == position_coded(SHAPE)[1:, 2:, 3:]).all()


def test_flaky_source_fails_where_and_as_often_as_told():
    corner = Box((0, 0, 0), (1, 1, 1))
    failures = [Failure(corner, times=2), Failure(corner, error=CorruptDataError)]
    source = FlakySource(ArraySource.of_shape(SHAPE), failures)
    elsewhere = Box((1, 0, 0), SHAPE)
    for error in (TransientError, TransientError, CorruptDataError):
        assert (source.read(elsewhere) == position_coded(SHAPE)[1:]).all()
        with pytest.raises(error):
            source.read(Box.of_shape(SHAPE))
    assert (source.read(Box.of_shape(SHAPE)) == position_coded(SHAPE)).all()


def test_slow_source_waits_before_each_read():
    waits = []
    source = SlowSource(ArraySource.of_shape(SHAPE), 0.25, sleep=waits.append)
    for _ in range(3):
        source.read(Box.of_shape(SHAPE))
    assert waits == [0.25] * 3


class ShiftedSource(ArraySource):
    """Reads one row off."""

    def read(self, box, on_hole=ignore_hole):
        return super().read(box if box.stop[1] == SHAPE[1] else box.shift((0, 1, 0)), on_hole)


class ArraySink:
    """In memory; with `is_strict` False it takes part of a shard, and what was not written is black."""

    arrays = ("em", "uncertainty")

    def __init__(self, is_strict):
        self.spec = VolumeSpec("memory", "array", Frame(SHAPE, VOXEL_SIZE_NM), "uint8", (2, 4, 4), (2, 4, 8))
        self.is_strict = is_strict
        self.voxels = {name: np.zeros(SHAPE, np.uint8) for name in self.arrays}
        self.written = {name: np.zeros(SHAPE, bool) for name in self.arrays}

    def write(self, array, box, voxels):
        if self.is_strict and not BlockGrid(SHAPE, self.spec.shard_shape).is_aligned(box):
            raise MisalignedWriteError(f"{box}")
        self.voxels[array][box.slices], self.written[array][box.slices] = voxels, True

    def read(self, array, box):
        if self.is_strict and not self.written[array][box.slices].all():
            raise MissingDataError(f"{array} {box}")
        return self.voxels[array][box.slices]


class TestDoubleSource(SourceConformance):
    @pytest.fixture
    def voxels(self):
        return position_coded(SHAPE)

    @pytest.fixture
    def frame(self):
        return Frame(SHAPE, VOXEL_SIZE_NM)

    @pytest.fixture
    def source(self, voxels):
        return ArraySource(voxels)


class TestDoubleSink(SinkConformance):
    @pytest.fixture
    def sink(self):
        return ArraySink(is_strict=True)


def test_a_source_that_reads_one_row_off_is_found():
    with pytest.raises(AssertionError):
        SourceConformance().test_any_box_is_that_part_of_the_whole(
            ShiftedSource.of_shape(SHAPE), position_coded(SHAPE)
        )


def test_a_sink_that_takes_part_of_a_shard_or_invents_voxels_is_found():
    for claim in ("part_of_a_shard_is_refused_and_nothing_is_written", "what_was_not_written_is_missing"):
        with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
            getattr(SinkConformance(), f"test_{claim}")(ArraySink(is_strict=False))


def test_a_model_whose_tiles_depend_on_each_other_is_found():
    class Leaking:
        card = LINEAR

        def generate(self, gap, noise):
            return Interpolation(1).generate(gap, noise) + gap.sections.mean()

    case = ModelCase(lambda steps: Leaking(), side=16)
    for claim in (
        "a_tile_is_a_function_of_its_own_inputs",
        "tiles_agree_beyond_their_context_or_differ_measurably",
    ):
        with pytest.raises(AssertionError):
            getattr(ModelConformance(), f"test_{claim}")(case)
