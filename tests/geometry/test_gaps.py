"""Sections, planes and gaps, against a plane-by-plane count."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.geometry.gaps import Gap, Gaps
from vemdiffuse_pipe.geometry.plane_groups import PARTLY_FILLED, Provenance, Ratio


@st.composite
def all_gaps(draw: st.DrawFn) -> Gaps:
    n_sections = draw(st.integers(2, 12))
    inner = st.sets(st.integers(1, n_sections - 2)) if n_sections > 2 else st.just(set())
    exact = st.fractions(Fraction(3, 2), 7, max_denominator=50).filter(lambda r: r.denominator > 1)
    return Gaps(n_sections, draw(st.integers(2, 7) | exact), tuple(sorted(draw(inner))))


@st.composite
def gaps_and_range(draw: st.DrawFn) -> tuple[Gaps, int, int]:
    gaps = draw(all_gaps())
    first = draw(st.integers(0, gaps.n_planes - 1))
    return gaps, first, draw(st.integers(first + 1, gaps.n_planes))


def _owner(gaps: Gaps, plane: int) -> Gap | None:
    """The gap of a plane, found by walking over the kept sections; None for a measured plane."""
    kept = [u for u in range(gaps.n_sections) if u not in gaps.rejected]
    for lower, upper in pairwise(kept):
        if lower * gaps.r < plane < upper * gaps.r:
            return Gap(lower, upper, gaps.r)
    return None


@given(gaps_and_range())
def test_every_plane_is_measured_or_in_exactly_one_gap(case: tuple[Gaps, int, int]) -> None:
    gaps, first, stop = case
    measured = {plane for _, plane in gaps.measured(first, stop)}
    generated = [
        p for g in gaps.touching(first, stop) for p in range(g.first_plane, g.first_plane + g.n_planes)
    ]
    assert len(generated) == len(set(generated))
    for plane in range(first, stop):
        assert (plane in measured) != (plane in generated)
    assert all(_owner(gaps, p) is None for p in measured)


@given(gaps_and_range())
def test_gaps_touching_a_range_are_those_that_brute_force_finds(case: tuple[Gaps, int, int]) -> None:
    gaps, first, stop = case
    owners = [_owner(gaps, p) for p in range(first, stop)]
    expected = list(dict.fromkeys(g for g in owners if g is not None))
    assert list(gaps.touching(first, stop)) == expected


@given(gaps_and_range(), st.integers(0, 3))
def test_the_sections_read_are_the_fewest_that_hold_all_that_is_needed(
    case: tuple[Gaps, int, int], reach: int
) -> None:
    gaps, first, stop = case
    needed = {u for u, _ in gaps.measured(first, stop)}
    for gap in gaps.touching(first, stop):
        needed |= {gap.lower, gap.upper}
    assert needed
    low, high = max(0, min(needed) - reach), min(gaps.n_sections, max(needed) + 1 + reach)
    assert gaps.sections_for(first, stop, reach) == (low, high)


@given(all_gaps())
def test_provenance_says_of_every_plane_where_it_comes_from(gaps: Gaps) -> None:
    codes = gaps.provenance()
    assert len(codes) == gaps.n_planes == (gaps.n_sections - 1) * gaps.r // 1 + 1
    for plane, code in enumerate(codes):
        owner = _owner(gaps, plane)
        expected = Provenance.MEASURED if owner is None else Provenance.GENERATED
        expected = Provenance.BRIDGED if owner is not None and owner.ratio > gaps.r else expected
        assert code == expected
    touched = list(gaps.touching(0, gaps.n_planes))
    assert gaps.max_ratio == max((g.ratio for g in touched), default=gaps.r)
    assert max(g.n_planes for g in touched) <= gaps.most_planes


@given(all_gaps())
def test_planes_lie_a_whole_number_of_steps_from_section_0(gaps: Gaps) -> None:
    for gap in gaps.touching(0, gaps.n_planes):
        for plane in range(gap.first_plane, gap.first_plane + gap.n_planes):
            at = gap.lower + gap.position(plane) * (gap.upper - gap.lower)
            assert abs(at - float(plane / gaps.r)) < 1e-9
            assert 0 < gap.position(plane) < 1
    for section, plane in gaps.measured(0, gaps.n_planes):
        assert plane == section * gaps.r


@given(st.fractions(Fraction(3, 2), 7, max_denominator=20))
def test_the_most_planes_of_a_gap_are_found_within_a_period(r: Fraction) -> None:
    gaps = Gaps(r.denominator + 1, r)
    assert max(gap.n_planes for gap in gaps.touching(0, gaps.n_planes)) == gaps.most_planes


@given(all_gaps(), st.sets(st.integers(0, 11)))
def test_planes_are_partly_filled_where_a_section_that_they_come_from_was(
    gaps: Gaps, filled: set[int]
) -> None:
    filled = {u for u in filled if u < gaps.n_sections and u not in gaps.rejected}
    bare, codes = gaps.provenance(), gaps.provenance(filled)
    for plane in range(gaps.n_planes):
        owner = _owner(gaps, plane)
        sections = {plane / gaps.r} if owner is None else set(owner.sections)
        assert codes[plane] - bare[plane] == PARTLY_FILLED * bool(sections & filled)


@pytest.mark.parametrize(
    ("n_sections", "r", "rejected"),
    [
        (1, 5, ()),
        (3, 1, ()),
        (3, Fraction(9, 10), ()),
        (3, 5, (0,)),
        (3, 5, (2,)),
        (5, 5, (2, 1)),
        (5, 5, (2, 2)),
        (5, 5, (-1,)),
    ],
)
def test_sections_that_leave_no_gap_to_fill_are_refused(
    n_sections: int, r: Ratio, rejected: tuple[int, ...]
) -> None:
    with pytest.raises(PlanError):
        Gaps(n_sections, r, rejected)


@given(all_gaps(), st.data())
def test_where_no_section_is_kept_every_plane_is_made_in_the_gap_above_it(
    kept: Gaps, data: st.DataObject
) -> None:
    """The last plane, where it lies at the last section, in the gap below."""
    gaps = replace(kept, keeps_sections=False)
    first = data.draw(st.integers(0, gaps.n_planes - 1))
    stop = data.draw(st.integers(first + 1, gaps.n_planes))
    assert not list(gaps.measured(first, stop))
    made = {
        p: g for g in gaps.touching(first, stop) for p in range(g.first_plane, g.first_plane + g.n_planes)
    }
    assert set(range(first, stop)) <= set(made)
    low, high = gaps.sections_for(first, stop)
    for plane in range(first, stop):
        gap = made[plane]
        at_end = plane == (gaps.n_sections - 1) * gaps.r
        assert gap.lower * gaps.r <= plane
        assert plane < gap.upper * gaps.r or at_end
        assert low <= gap.lower < gap.upper < high
        assert 0 <= gap.position(plane) <= 1
        assert gap.n_planes <= gaps.most_planes
    counted = sum(n * planes for n, planes in gaps.counts_touching(first, stop))
    assert counted == len(made)
    codes = gaps.provenance()
    assert (codes[:: gaps.r.numerator] == Provenance.RESTORED).sum() == sum(
        not gaps.is_rejected(u) for u in range(0, gaps.n_sections, gaps.r.denominator)
    )
