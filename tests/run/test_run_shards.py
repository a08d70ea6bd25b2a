"""What is missing, by arithmetic, against what is counted shard by shard."""

from __future__ import annotations

import tracemalloc
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vemdiffuse_pipe.errors import OutputError
from vemdiffuse_pipe.geometry.box import Zyx
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.records.shards import ShardSet, Work, count_missing, missing_work

SHAPE, SHARD = (13, 29, 47), (3, 5, 7)
SHARDS = BlockGrid(SHAPE, SHARD)
BLOCK_SHAPES = [(3, 5, 7), (6, 10, 21), (13, 29, 47), (3, 29, 14), (9, 5, 49)]

members = st.sets(st.integers(0, SHARDS.n_blocks - 1))


def set_of(shards: set[int], grid: BlockGrid = SHARDS) -> ShardSet:
    done = ShardSet(grid)
    for shard in shards:
        done.add(shard)
    return done


@given(members)
def test_a_shard_set_holds_what_was_added(shards: set[int]) -> None:
    done = set_of(shards)
    assert {s for s in range(SHARDS.n_blocks) if s in done} == shards
    assert len(done) == len(shards)
    assert [done.member(i) for i in range(len(shards))] == sorted(shards)


@given(members, members)
def test_a_union_holds_both(ours: set[int], theirs: set[int]) -> None:
    union = set_of(ours) | set_of(theirs)
    assert {s for s in range(SHARDS.n_blocks) if s in union} == ours | theirs


@given(members)
def test_voxels_of_a_set_are_those_of_its_shards_cut_at_the_edge(shards: set[int]) -> None:
    assert set_of(shards).n_voxels() == sum(SHARDS.box(s).n_voxels for s in shards)


def test_a_shard_outside_the_grid_is_refused() -> None:
    for shard in (-1, SHARDS.n_blocks):
        with pytest.raises(OutputError):
            set_of({shard})


@settings(deadline=None)
@given(members, st.sampled_from(BLOCK_SHAPES))
def test_missing_work_is_each_missing_shard_once(shards: set[int], block_shape: Zyx) -> None:
    blocks, done = BlockGrid(SHAPE, block_shape), set_of(shards)
    found = [s for w in missing_work(blocks, done) for s in SHARDS.touching(w.output_box)]
    assert sorted(found) == sorted(set(range(SHARDS.n_blocks)) - shards)


@settings(deadline=None)
@given(members, st.sampled_from(BLOCK_SHAPES))
def test_missing_work_lies_in_its_block_and_is_whole_shards(shards: set[int], block_shape: Zyx) -> None:
    blocks = BlockGrid(SHAPE, block_shape)
    for work in missing_work(blocks, set_of(shards)):
        assert blocks.box(work.block_index).contains(work.output_box)
        assert SHARDS.is_aligned(work.output_box)


@settings(deadline=None)
@given(members, st.sampled_from(BLOCK_SHAPES))
def test_column_by_column_it_is_the_same_work_with_z_fastest(shards: set[int], block_shape: Zyx) -> None:
    blocks, done = BlockGrid(SHAPE, block_shape), set_of(shards)
    found = list(missing_work(blocks, done, columns=True))
    ascending = list(missing_work(blocks, done))
    assert sorted(found, key=lambda w: (w.block_index, w.output_box.start)) == ascending
    starts = [blocks.box(w.block_index).start for w in found]
    assert starts == sorted(starts, key=lambda zyx: (zyx[1], zyx[2], zyx[0]))


@settings(deadline=None)
@given(members, st.sampled_from(BLOCK_SHAPES))
def test_missing_blocks_are_counted_as_they_are_listed(shards: set[int], block_shape: Zyx) -> None:
    blocks, done = BlockGrid(SHAPE, block_shape), set_of(shards)
    assert count_missing(blocks, done) == len({w.block_index for w in missing_work(blocks, done)})


@pytest.mark.parametrize("block_shape", BLOCK_SHAPES)
def test_a_block_of_which_nothing_is_done_is_one_piece_of_work(block_shape: Zyx) -> None:
    blocks = BlockGrid(SHAPE, block_shape)
    expected = [Work(i, blocks.box(i)) for i in range(blocks.n_blocks)]
    assert list(missing_work(blocks, ShardSet(SHARDS))) == expected


def test_missing_shards_beside_each_other_are_one_piece_of_work() -> None:
    grid = BlockGrid((1, 2, 6), (1, 1, 1))
    boxes = [str(w.output_box) for w in missing_work(BlockGrid((1, 2, 6), (1, 2, 6)), set_of({0, 4}, grid))]
    assert boxes == ["[0:1, 0:1, 1:4]", "[0:1, 0:1, 5:6]", "[0:1, 1:2, 0:6]"]


def test_memory_for_a_million_blocks_is_that_of_a_thousand() -> None:
    shape = (1000 * 8, 40 * 16, 25 * 16)
    grid = BlockGrid(shape, (8, 16, 16))
    work = missing_work(grid, ShardSet(grid))
    assert grid.n_blocks == 1_000_000
    tracemalloc.start()
    list(islice(work, 1000))
    tracemalloc.reset_peak()
    n_listed = sum(1 for _ in islice(work, 20_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n_listed == 20_000
    assert peak < 500_000
