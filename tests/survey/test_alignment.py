"""The shifts between sections that were planted are found, in parts of a pixel; jumps are named."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from scipy import ndimage

from vemdiffuse_pipe.errors import MissingDataError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.phantom import phantom
from vemdiffuse_pipe.survey.alignment import MAX_PAIRS, Alignment, PairShift, measure_alignment
from vemdiffuse_pipe.testing import ArraySource, Failure, FlakySource
from vemdiffuse_pipe.volume import OnHole, VolumeSpec, Voxels, ignore_hole

SIDE = 120
TISSUE = phantom((1, SIDE, SIDE), 4)[0].astype(np.float32)
VOXEL_NM = (Fraction(50), Fraction(10), Fraction(10))  # a jump is more than 5 px


def stack(places: Sequence[tuple[float, float]]) -> ArraySource:
    """Sections of the same tissue, each at its own place, with noise of its own."""
    rng = np.random.default_rng(0)
    moved = [ndimage.shift(TISSUE, place, order=3, mode="mirror") for place in places]
    noisy = np.stack(moved) + rng.normal(0, 8, (len(places), SIDE, SIDE))
    return ArraySource(np.clip(noisy, 0, 255).astype(np.uint8), VOXEL_NM)


def test_planted_shifts_are_found_to_a_tenth_of_a_pixel() -> None:
    places = [(0.0, 0.0), (0.5, -0.25), (-2.3, 1.6), (1.0, 0.0)]
    found = measure_alignment(stack(places))
    for pair in found.pairs:
        planted = np.subtract(places[pair.lower + 1], places[pair.lower])
        assert pair.shift_px is not None
        assert np.abs(np.subtract(pair.shift_px, planted)).max() < 0.1
    assert len(found.pairs) == found.n_pairs == 3


def test_a_jump_is_named_and_does_not_spoil_a_good_stack() -> None:
    places = [(0.0, 0.0)] * 4 + [(14.0, -9.0)] * 4
    found = measure_alignment(stack(places))
    (jump,) = found.jumps
    assert jump.lower == 3
    assert np.allclose(jump.shift_px or (), (14, -9), atol=0.2)
    assert found.is_good_enough
    assert "at the jumps" in found.verdict


def test_a_stack_of_jumps_is_too_badly_aligned() -> None:
    found = measure_alignment(stack([(0.0, 0.0), (9.0, 0.0), (0.0, 9.0), (-9.0, 0.0), (0.0, 0.0)]))
    assert len(found.jumps) == 4
    assert not found.is_good_enough
    assert "align the stack first" in found.verdict


def test_sections_that_have_nothing_in_common_have_no_shift() -> None:
    one, other = (phantom((1, 300, 300), seed)[0] for seed in (5, 6))
    found = measure_alignment(ArraySource(np.stack([one, other, one]), VOXEL_NM))
    assert len(found.unclear) == len(found.pairs) == 2
    assert not found.is_good_enough


def test_what_is_black_or_absent_is_passed_over() -> None:
    voxels = np.stack([TISSUE, TISSUE, 0 * TISSUE, TISSUE, TISSUE]).astype(np.uint8)
    source = FlakySource(
        ArraySource(voxels, VOXEL_NM), [Failure(Box((4, 0, 0), (5, 9, 9)), 9, MissingDataError)]
    )
    found = measure_alignment(source)
    assert [pair.n_tiles for pair in found.pairs] == [1, 0, 0, 0]
    assert not found.unclear
    assert found.is_good_enough


def test_of_a_deep_stack_a_bounded_number_of_pairs_is_read_in_whole_chunks() -> None:
    class Deep:
        """Millions of sections, each the same, and a record of what was read."""

        spec = VolumeSpec("-", "-", Frame((10**6, SIDE, SIDE), VOXEL_NM), "uint8", (64, 64, 64), (64, 64, 64))
        n_read = 0

        def read(self, box: Box, on_hole: OnHole = ignore_hole) -> Voxels:
            self.n_read += box.shape[0]
            assert box.start[0] // 64 == (box.stop[0] - 1) // 64
            return np.broadcast_to(TISSUE.astype(np.uint8), box.shape)

    source = Deep()
    found = measure_alignment(source)
    assert 200 < len(found.pairs) <= MAX_PAIRS
    assert source.n_read < 1.1 * MAX_PAIRS
    assert found.pairs[0].lower > 10**5 > 10**6 - found.pairs[-1].lower - 10**5
    assert found.n_pairs == 10**6 - 1


def test_json_says_what_was_found() -> None:
    pairs = (PairShift(0, (3.0, 4.0), 0.5, 9), PairShift(1, None, 20.0, 9))
    found = Alignment(pairs, 2, 4.0).as_dict()
    assert (found["jumps"], found["unclear"], found["typical_px"]) == ([0], [1], 5.0)
