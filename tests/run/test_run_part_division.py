"""Which blocks a part is, and how a part is named: by hand, or by the job array of every scheduler."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.records.parts import Part, Share, parse_part
from vemdiffuse_pipe.records.shards import ShardSet, count_missing, missing_work

SHARDS = BlockGrid((5, 7, 6), (1, 1, 1))
BLOCKS = BlockGrid((5, 7, 6), (2, 3, 2))

sets = st.sets(st.integers(0, SHARDS.n_blocks - 1))
counts = st.integers(1, 40)


def set_of(shards: set[int]) -> ShardSet:
    done = ShardSet(SHARDS)
    for shard in shards:
        done.add(shard)
    return done


def pieces(done: ShardSet, share: Share, *, columns: bool, backwards: bool = False) -> list[str]:
    work = missing_work(BLOCKS, done, columns=columns, share=share, backwards=backwards)
    return [f"{one.block_index} {one.output_box}" for one in work]


@given(shards=sets, n=counts, columns=st.booleans())
def test_parts_are_the_missing_work_each_piece_once(shards: set[int], n: int, columns: bool) -> None:
    done = set_of(shards)
    whole = sorted(pieces(done, Share(), columns=columns))
    own = [p for i in range(1, n + 1) for p in pieces(done, Part(i, n).own, columns=columns)]
    helped = [p for i in range(1, n + 1) for p in pieces(done, Part(i, n).helped, columns=columns)]
    assert sorted(own) == whole
    assert sorted(helped) == whole


@given(shards=sets, n=counts, columns=st.booleans())
def test_backwards_is_the_same_work_from_its_end(shards: set[int], n: int, columns: bool) -> None:
    done, share = set_of(shards), Part(1, n).own
    forwards = pieces(done, share, columns=columns)
    assert pieces(done, share, columns=columns, backwards=True) == forwards[::-1]


@given(shards=sets, n=counts, columns=st.booleans())
def test_the_missing_blocks_of_a_part_are_counted(shards: set[int], n: int, columns: bool) -> None:
    done, share = set_of(shards), Part(n, n).own
    indices = {w.block_index for w in missing_work(BLOCKS, done, columns=columns, share=share)}
    assert count_missing(BLOCKS, done, columns=columns, share=share) == len(indices)


def test_a_part_walks_along_whole_columns() -> None:
    blocks = BlockGrid((4, 4, 3), (1, 1, 1))
    own = Part(2, 5).own
    work = missing_work(blocks, ShardSet(blocks), columns=True, share=own)
    assert [w.output_box.start for w in work] == [
        (z, y, x) for y, x in ((0, 1), (2, 0), (3, 2)) for z in range(4)
    ]


def test_columns_are_cut_where_there_are_more_parts() -> None:
    blocks = BlockGrid((4, 1, 2), (1, 1, 1))
    found = [
        [w.block_index for w in missing_work(blocks, ShardSet(blocks), columns=True, share=Part(i, 4).own)]
        for i in range(1, 5)
    ]
    assert found == [[0, 2], [4, 6], [1, 3], [5, 7]]


def test_what_one_part_leaves_is_divided_between_all() -> None:
    blocks = BlockGrid((1, 1, 64), (1, 1, 1))
    left = {w.block_index for w in missing_work(blocks, ShardSet(blocks), share=Part(3, 8).own)}
    for i in range(1, 9):
        helped = {w.block_index for w in missing_work(blocks, ShardSet(blocks), share=Part(i, 8).helped)}
        assert len(left & helped) == 1


@pytest.mark.parametrize(
    ("text", "environ", "part"),
    [
        ("3/8", {}, Part(3, 8)),
        (
            "auto",
            {
                "SLURM_ARRAY_TASK_ID": "7",
                "SLURM_ARRAY_TASK_MIN": "1",
                "SLURM_ARRAY_TASK_MAX": "15",
                "SLURM_ARRAY_TASK_STEP": "2",
                "SLURM_ARRAY_TASK_COUNT": "8",
            },
            Part(4, 8),
        ),
        (
            "auto",
            {
                "SLURM_ARRAY_TASK_ID": "0",
                "SLURM_ARRAY_TASK_MIN": "0",
                "SLURM_ARRAY_TASK_MAX": "63",
                "SLURM_ARRAY_TASK_STEP": "1",
            },
            Part(1, 64),
        ),
        ("auto", {"LSB_JOBINDEX": "9", "LSB_JOBINDEX_END": "12", "LSB_JOBINDEX_STEP": "1"}, Part(9, 12)),
        ("auto", {"LSB_JOBINDEX": "5", "LSB_JOBINDEX_END": "12", "LSB_JOBINDEX_STEP": "4"}, Part(2, 3)),
        (
            "auto",
            {"SGE_TASK_ID": "4", "SGE_TASK_FIRST": "2", "SGE_TASK_LAST": "9", "SGE_TASK_STEPSIZE": "2"},
            Part(2, 4),
        ),
        (
            "auto",
            {"SGE_TASK_ID": "undefined", "LSB_JOBINDEX": "2", "LSB_JOBINDEX_END": "2"},
            Part(2, 2),
        ),
        ("auto/64", {"PBS_ARRAY_INDEX": "0"}, Part(64, 64)),
        ("auto/64", {"PBS_ARRAYID": "63"}, Part(63, 64)),
        ("auto/64", {"SLURM_ARRAY_TASK_ID": "64"}, Part(64, 64)),
    ],
)
def test_a_part_is_found(text: str, environ: dict[str, str], part: Part) -> None:
    assert parse_part(text, environ) == part


@pytest.mark.parametrize("first", [0, 1])
def test_any_successive_numbers_are_all_parts(first: int) -> None:
    found = {parse_part("auto/5", {"PBS_ARRAY_INDEX": str(first + i)}) for i in range(5)}
    assert found == {Part(i, 5) for i in range(1, 6)}


UNEVEN = {
    "SLURM_ARRAY_TASK_ID": "9",
    "SLURM_ARRAY_TASK_MIN": "1",
    "SLURM_ARRAY_TASK_MAX": "9",
    "SLURM_ARRAY_TASK_STEP": "1",
    "SLURM_ARRAY_TASK_COUNT": "3",
}


@pytest.mark.parametrize(
    ("text", "environ", "sentence"),
    [
        ("0/8", {}, "part 0/8; parts are numbered from 1"),
        ("9/8", {}, "part 9/8"),
        ("1/0", {}, "part 1/0"),
        ("auto/0", {"PBS_ARRAY_INDEX": "1"}, "part 0/0"),
        ("8", {}, "part '8'; i/n"),
        ("-1/3", {}, "part '-1/3'"),
        ("1/9999999", {}, "at most 1000000"),
        ("\u0663/8", {}, "i/n with i from 1 to n"),
        ("", {}, "part ''"),
        ("auto", {}, "this is no job of an array"),
        ("auto", {"LSB_JOBINDEX": "0"}, "this is no job of an array"),
        ("auto", {"PBS_ARRAY_INDEX": "3"}, "write --part auto/64"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "3"}, "^SLURM_ARRAY_TASK_ID numbers.*write --part auto/64"),
        ("auto", {"SGE_TASK_ID": "3", "SGE_TASK_LAST": "9"}, "^SGE_TASK_ID numbers.*write --part auto/64"),
        ("auto", {"LSB_JOBINDEX": "3"}, "^LSB_JOBINDEX numbers.*write --part auto/64"),
        ("auto", {"LSB_JOBINDEX": "x", "LSB_JOBINDEX_END": "2"}, "LSB_JOBINDEX is 'x'"),
        ("auto", UNEVEN, "not evenly numbered; write --part auto/n"),
    ],
)
def test_what_is_no_part_is_refused_in_a_sentence(text: str, environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence.replace("(", r"\(")):
        parse_part(text, environ)
