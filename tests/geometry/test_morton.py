"""Compressed Morton codes number every chunk once, and their lowest bits cut the grid into boxes."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from vemdiffuse_pipe.geometry.morton import code_of, covered, n_bits

grids = st.tuples(*[st.integers(1, 9)] * 3)


@given(grids)
def test_every_chunk_has_a_code_of_its_own(counts: tuple[int, int, int]) -> None:
    codes = [code_of(chunk, counts) for chunk in product(*map(range, counts))]
    assert len(set(codes)) == len(codes)
    assert max(codes) < 2 ** n_bits(counts)


@given(grids, st.integers(0, 12))
def test_chunks_that_share_their_high_bits_are_a_box_of_the_stated_size(
    counts: tuple[int, int, int], bits: int
) -> None:
    size = covered(counts, bits)
    for chunk in product(*map(range, counts)):
        corner = tuple(c // s * s for c, s in zip(chunk, size, strict=True))
        assert code_of(corner, counts) >> bits == code_of(chunk, counts) >> bits  # type: ignore[arg-type]
    boxes = {code_of(chunk, counts) >> bits for chunk in product(*map(range, counts))}
    n_boxes = 1
    for n, s in zip(counts, size, strict=True):
        n_boxes *= -(-n // s)
    assert len(boxes) == n_boxes


def test_codes_of_a_grid_drawn_by_hand() -> None:
    assert [code_of((0, y, x), (1, 2, 8)) for y in (0, 1) for x in range(4)] == [0, 1, 4, 5, 2, 3, 6, 7]
    assert covered((1, 2, 8), 3) == (1, 2, 4)
