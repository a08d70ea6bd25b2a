"""The doubles are sources, and fail as they are told."""

import numpy as np
import pytest

from vemdiffuse_pipe.errors import CorruptDataError, TransientError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.testing import ArraySource, Failure, FlakySource, SlowSource, position_coded

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
