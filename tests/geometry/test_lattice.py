"""The tile lattice: partition of unity, and arithmetic against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.lattice import CoreLattice, Tile, TileLattice


@st.composite
def lattices(draw: st.DrawFn) -> TileLattice:
    overlap = draw(st.integers(0, 5))
    tile = st.integers(max(1, 2 * overlap), 2 * overlap + 9)
    side = st.integers(1, 41)
    return TileLattice((draw(side), draw(side)), (draw(tile), draw(tile)), overlap)


@st.composite
def lattice_and_box(draw: st.DrawFn) -> tuple[TileLattice, Box]:
    lattice = draw(lattices())
    y, x = (draw(st.integers(0, n - 1)) for n in lattice.shape)
    ny, nx = (draw(st.integers(1, 50)) for _ in range(2))
    return lattice, Box((3, y, x), (4, min(y + ny, lattice.shape[0]), min(x + nx, lattice.shape[1])))


def _all_tiles(lattice: TileLattice) -> list[Tile]:
    sy, sx = lattice.stride_px
    return [
        Tile((i, j), (i * sy, j * sx)) for i in range(lattice.counts[0]) for j in range(lattice.counts[1])
    ]


def _window(lattice: TileLattice, tile: Tile) -> Box:
    return Box.of_shape((1, *lattice.tile_px), (3, *tile.start))


@given(lattices())
def test_ramps_sum_to_one_everywhere_edges_included(lattice: TileLattice) -> None:
    reach = [
        s * (n - 1) + t for s, n, t in zip(lattice.stride_px, lattice.counts, lattice.tile_px, strict=True)
    ]
    total = np.zeros(reach, np.float64)
    for tile in _all_tiles(lattice):
        total[_window(lattice, tile).slices[1:]] += lattice.weights(tile)
    assert reach[0] >= lattice.shape[0]
    assert reach[1] >= lattice.shape[1]
    assert np.abs(total[: lattice.shape[0], : lattice.shape[1]] - 1).max() < 1e-6


@given(lattice_and_box())
def test_tiles_touching_a_box_are_those_that_brute_force_finds(case: tuple[TileLattice, Box]) -> None:
    lattice, box = case
    expected = [t for t in _all_tiles(lattice) if not _window(lattice, t).intersect(box).is_empty]
    assert list(lattice.touching(box)) == expected
    assert lattice.n_touching(box) == len(expected)


@given(lattice_and_box())
def test_reach_is_the_hull_of_the_tiles_inside_the_volume(case: tuple[TileLattice, Box]) -> None:
    lattice, box = case
    windows = [_window(lattice, t) for t in lattice.touching(box)]
    start = (3, min(w.start[1] for w in windows), min(w.start[2] for w in windows))
    stop = (4, max(w.stop[1] for w in windows), max(w.stop[2] for w in windows))
    assert lattice.reach(box) == Box(start, stop).intersect(Box((3, 0, 0), (4, *lattice.shape)))


@given(lattices())
def test_no_tile_is_needless(lattice: TileLattice) -> None:
    """Without the last tile of an axis some voxel would lack its full weight."""
    for axis in (0, 1):
        last = (lattice.counts[axis] - 1) * lattice.stride_px[axis]
        assert last == 0 or last + lattice.overlap_px < lattice.shape[axis]


@pytest.mark.parametrize("overlap", [-1, 5])
def test_an_overlap_where_three_tiles_would_meet_is_refused(overlap: int) -> None:
    with pytest.raises(PlanError):
        TileLattice((32, 32), (9, 9), overlap)


@st.composite
def cores_and_box(draw: st.DrawFn) -> tuple[CoreLattice, Box]:
    multiple = draw(st.integers(1, 3))
    core, halo = multiple * draw(st.integers(1, 6)), multiple * draw(st.integers(0, 4))
    y, x = draw(st.integers(1, 41)), draw(st.integers(1, 41))
    y0, x0 = draw(st.integers(0, y - 1)), draw(st.integers(0, x - 1))
    box = Box((3, y0, x0), (4, draw(st.integers(y0 + 1, y)), draw(st.integers(x0 + 1, x))))
    return CoreLattice((y, x), core, halo, multiple), box


def _flat(box: Box) -> Box:
    return Box((0, *box.start[1:]), (1, *box.stop[1:]))


@given(cores_and_box())
def test_every_pixel_of_a_box_is_kept_of_one_tile_and_seen_with_its_halo(
    case: tuple[CoreLattice, Box],
) -> None:
    lattice, box = case
    plane = Box.of_shape((1, *lattice.shape))
    kept = np.zeros(lattice.shape, int)
    for tile in lattice.touching(box):
        core, window = lattice.kept(tile), lattice.window(tile)
        kept[core.intersect(_flat(box)).slices[1:]] += 1
        around = Box(
            (0, core.start[1] - lattice.halo_px, core.start[2] - lattice.halo_px),
            (1, core.stop[1] + lattice.halo_px, core.stop[2] + lattice.halo_px),
        )
        assert window.contains(around.intersect(plane))
        assert tile.start == window.start[1:]
        assert all(a % lattice.multiple_px == 0 for a in (*window.start[1:], *window.stop[1:]))
        assert all(a <= b for a, b in zip(window.shape[1:], lattice.tile_px, strict=True))
    assert (kept[box.slices[1:]] == 1).all()
    assert kept.sum() == box.n_voxels


@given(cores_and_box())
def test_what_cores_cost_is_what_brute_force_counts(case: tuple[CoreLattice, Box]) -> None:
    lattice, box = case
    windows = [lattice.window(tile) for tile in lattice.touching(box)]
    rows, columns = (lattice.n_rendered(axis, box.start[axis + 1], box.stop[axis + 1]) for axis in (0, 1))
    assert rows * columns == sum(w.n_voxels for w in windows)
    assert len(windows) == lattice.n_touching(box)
    start = (3, min(w.start[1] for w in windows), min(w.start[2] for w in windows))
    stop = (4, max(w.stop[1] for w in windows), max(w.stop[2] for w in windows))
    assert lattice.reach(box) == Box(start, stop).intersect(Box((3, 0, 0), (4, *lattice.shape)))


@pytest.mark.parametrize(("core", "halo"), [(0, 8), (12, 8), (16, 4)])
def test_cores_that_are_not_whole_cells_are_refused(core: int, halo: int) -> None:
    with pytest.raises(PlanError, match="multiples of 8"):
        CoreLattice((32, 32), core, halo, 8)
