"""Boxes, frames and block grids: arithmetic against brute force."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Frame, exact_nm
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.geometry.region import planes_of

sizes = st.integers(1, 13)
shapes = st.tuples(sizes, sizes, sizes)
points = st.tuples(st.integers(-5, 15), st.integers(-5, 15), st.integers(-5, 15))


def _filled(shape: Zyx, box: Box) -> np.ndarray:
    inside = np.zeros(shape, bool)
    clipped = box.intersect(Box.of_shape(shape))
    inside[clipped.slices] = not clipped.is_empty
    return inside


@given(shapes, points, shapes, points, shapes)
def test_intersection_holds_the_voxels_of_both(
    shape: Zyx, start_a: Zyx, shape_a: Zyx, start_b: Zyx, shape_b: Zyx
) -> None:
    a, b = Box.of_shape(shape_a, start_a), Box.of_shape(shape_b, start_b)
    assert np.array_equal(_filled(shape, a.intersect(b)), _filled(shape, a) & _filled(shape, b))
    assert a.contains(a.intersect(b))


@given(shapes, shapes)
def test_blocks_partition_the_output(shape: Zyx, block_shape: Zyx) -> None:
    grid = BlockGrid(shape, block_shape)
    owner = np.full(shape, -1)
    for index in range(grid.n_blocks):
        assert (owner[grid.box(index).slices] == -1).all()
        owner[grid.box(index).slices] = index
    assert (owner >= 0).all()
    assert all(grid.index_of(v) == owner[v] for v in np.ndindex(*shape))


@given(shapes, shapes, points, shapes)
def test_blocks_touching_a_box_are_those_that_brute_force_finds(
    shape: Zyx, block_shape: Zyx, start: Zyx, size: Zyx
) -> None:
    grid, box = BlockGrid(shape, block_shape), Box.of_shape(size, start)
    expected = [i for i in range(grid.n_blocks) if not grid.box(i).intersect(box).is_empty]
    assert list(grid.touching(box)) == expected


@given(shapes, shapes, st.data())
def test_a_box_is_aligned_only_when_it_is_a_union_of_whole_blocks(
    shape: Zyx, block_shape: Zyx, data: st.DataObject
) -> None:
    grid = BlockGrid(shape, block_shape)
    start = data.draw(st.tuples(*(st.integers(0, n - 1) for n in shape)))
    stop = data.draw(st.tuples(*(st.integers(a + 1, n) for a, n in zip(start, shape, strict=True))))
    box = Box(start, stop)
    whole = all(box.contains(grid.box(i)) for i in grid.touching(box))
    assert grid.is_aligned(box) == whole


def test_an_index_outside_the_grid_is_refused() -> None:
    with pytest.raises(IndexError):
        BlockGrid((5, 5, 5), (2, 2, 2)).box(27)


def test_a_grid_of_a_petavoxel_gives_its_last_block_at_once() -> None:
    grid = BlockGrid((10**6, 10**6, 10**6), (64, 512, 512))
    assert grid.box(grid.n_blocks - 1).stop == (10**6, 10**6, 10**6)
    assert grid.index_of((10**6 - 1, 10**6 - 1, 10**6 - 1)) == grid.n_blocks - 1


@given(shapes, st.integers(2, 12), st.sampled_from(["45", "50", "40.5", "33.3"]))
def test_refining_z_keeps_the_centre_of_section_0_and_the_centre_of_the_last(
    shape: Zyx, r: int, dz: str
) -> None:
    frame = Frame(shape, exact_nm([dz, "4.3", "4.3"]), exact_nm([7, -3, "0.1"]))
    fine = frame.refined_z(r)
    assert fine.centre_nm == frame.centre_nm
    assert fine.corner_nm[0] - frame.corner_nm[0] == Fraction(dz) / 2 - Fraction(dz) / (2 * r)
    last, last_fine = shape[0] - 1, fine.shape[0] - 1
    assert frame.centre_nm[0] + last * Fraction(dz) == fine.centre_nm[0] + last_fine * Fraction(dz) / r


@given(shapes, st.fractions(Fraction(3, 2), 12, max_denominator=50))
def test_planes_of_an_exact_grid_end_less_than_one_before_the_last_section(shape: Zyx, r: Fraction) -> None:
    frame = Frame(shape, exact_nm([45, "4.3", "4.3"]), exact_nm([7, -3, "0.1"]))
    fine = frame.refined_z(r)
    assert fine.centre_nm == frame.centre_nm
    assert fine.voxel_size_nm[0] == 45 / r
    beyond = (shape[0] - 1) * Fraction(45) - (fine.shape[0] - 1) * fine.voxel_size_nm[0]
    assert 0 <= beyond < fine.voxel_size_nm[0]


@given(shapes, st.integers(2, 12) | st.fractions(Fraction(3, 2), 12, max_denominator=50), st.data())
def test_planes_of_some_sections_hold_what_lies_between_them_and_no_plane_more(
    shape: Zyx, r: int | Fraction, data: st.DataObject
) -> None:
    z = data.draw(st.integers(0, shape[0] - 1))
    stop = data.draw(st.integers(z + 1, shape[0]))
    planes = planes_of(Box((z, 0, 0), (stop, *shape[1:])), r)
    first, last = planes.start[0], planes.stop[0] - 1
    assert first / r <= z < (first + 1) / r
    assert (last - 1) / r < stop - 1 <= last / r


def test_a_decimal_length_is_exact() -> None:
    assert exact_nm([45, 4.3, "4.3"]) == (45, Fraction(43, 10), Fraction(43, 10))


@pytest.mark.parametrize("lengths", [[1, 2], [1, 2, float("nan")], [1, 2, float("inf")], [1, 2, "x"]])
def test_lengths_that_are_not_three_finite_numbers_are_refused(lengths: list[float]) -> None:
    with pytest.raises(SourceError):
        exact_nm(lengths)


@pytest.mark.parametrize(
    ("shape", "size"), [((0, 1, 1), [1, 1, 1]), ((1, 1, 1), [1, 0, 1]), ((1, 1, 1), [-1, 1, 1])]
)
def test_a_frame_without_voxels_or_size_cannot_be_built(shape: Zyx, size: list[int]) -> None:
    with pytest.raises(SourceError):
        Frame(shape, exact_nm(size))
