"""The self-test leaves sections out, looks at few places of any volume, and finds the model that is right."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from vemdiffuse_pipe.errors import ConfigError, MissingDataError, SourceError
from vemdiffuse_pipe.evaluation.agreement import Agreement, agreement, ring_correlation
from vemdiffuse_pipe.evaluation.interpolation import interpolate
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.holdout.answers import answer, doubled_ratio, load_candidate
from vemdiffuse_pipe.holdout.places import WINDOW_PX, draw_places, given_sections
from vemdiffuse_pipe.holdout.run import selftest
from vemdiffuse_pipe.holdout.verdict import ModelScores, judge
from vemdiffuse_pipe.models.card import CUBIC, find_card
from vemdiffuse_pipe.phantom import phantom
from vemdiffuse_pipe.testing import ArraySource, Failure, FlakySource, position_coded
from vemdiffuse_pipe.volume import OnHole, VolumeSpec, Voxels, ignore_hole

THICK = (Fraction(30), Fraction(10), Fraction(10))
TISSUE = phantom((9, 48, 56), 1)


def stack() -> ArraySource:
    return ArraySource(TISSUE, THICK)


def test_every_second_section_is_given_mirrored_at_the_ends() -> None:
    assert given_sections(5, 11, 1).tolist() == [2, 4, 6, 8]
    assert given_sections(1, 4, 2).tolist() == [0, 2, 0, 2, 0, 2]
    assert given_sections(8, 10, 1).tolist() == [5, 7, 9, 7]


def test_a_place_holds_the_section_left_out_and_never_that_one_among_the_given() -> None:
    source = ArraySource(position_coded((9, 48, 56)), THICK)
    for place in draw_places(source, 5, 2):
        z, y, x = place.start
        assert np.array_equal(place.truth, source.read(Box.of_shape((1, 48, 56), (z, y, x)))[0])
        assert not any(np.array_equal(place.truth, given) for given in place.given)


def test_what_linear_and_cubic_make_is_what_interpolation_of_every_second_section_gives() -> None:
    source, contrast = stack(), (128.0, 30.0)
    for name, order in (("linear", 1), ("cubic", 3)):
        candidate = load_candidate(name, source.spec, 3, contrast)
        for place in draw_places(source, 3, CUBIC.reach_sections):
            kept = TISSUE[(place.start[0] - 1) % 2 :: 2]
            expected = to_grey(interpolate(kept, 2, order))[place.start[0] - (place.start[0] - 1) % 2]
            made = answer(candidate, place, source.spec, contrast, 0)
            assert np.abs(made.estimate.astype(int) - expected).max() <= 1
            assert made.sample is None


def test_places_are_the_same_each_time_and_one_more_changes_none() -> None:
    class Deep:
        """A petabyte of the same tissue, and how much of it was read."""

        spec = VolumeSpec("-", "-", Frame((10**4, 10**6, 10**6), THICK), "uint8", (64, 64, 64), (64, 64, 64))
        n_read = 0

        def read(self, box: Box, on_hole: OnHole = ignore_hole) -> Voxels:
            self.n_read += box.n_voxels
            rng = np.random.default_rng(box.start[0])
            return rng.integers(1, 255, box.shape).astype(np.uint8)

    source = Deep()
    few, more = draw_places(source, 2, 0), draw_places(source, 4, 0)
    assert [p.start for p in few] == [p.start for p in more[:2]]
    assert source.n_read == 6 * 3 * WINDOW_PX**2
    assert len({p.start[1] // 10**5 for p in more}) > 1, "places are not spread"


def test_black_absent_and_duplicated_sections_are_no_places() -> None:
    voxels = TISSUE.copy()
    voxels[1] = 0
    voxels[4] = voxels[3]
    source = FlakySource(
        ArraySource(voxels, THICK), [Failure(Box((8, 0, 0), (9, 9, 9)), 99, MissingDataError)]
    )
    assert {place.start[0] for place in draw_places(source, 12, 0)} == {5, 6}


def test_a_volume_that_cannot_be_tested_is_refused_in_a_sentence() -> None:
    with pytest.raises(ConfigError, match="has 2 sections"):
        draw_places(ArraySource(TISSUE[:2], THICK), 1, 0)
    with pytest.raises(SourceError, match="shows no tissue"):
        draw_places(ArraySource(0 * TISSUE, THICK), 1, 0)
    with pytest.raises(ConfigError, match="fills gaps of ratio 5 alone"):
        doubled_ratio(find_card("udim"), 3)
    assert doubled_ratio(find_card("default"), 11) == 12


def test_the_test_says_what_was_measured_and_which_model_to_use() -> None:
    heard: list[str] = []
    found = selftest(stack(), ("linear", "cubic"), n_places=3, on_model=heard.append)
    assert list(found.scores) == heard == ["linear", "cubic"]
    assert found.verdict.estimate in found.verdict.sentence
    assert "twice as wide" in found.verdict.sentence
    assert "no model clearly beats interpolation" in found.verdict.sentence
    assert set(found.panels) == {"section below", "left out", "linear", "cubic"}
    assert found.as_dict()["verdict"] == found.verdict.sentence


def perfect(n: int = 4) -> list[Voxels]:
    return list(phantom((n, 64, 64), 2))


def test_agreement_is_full_with_itself_and_falls_with_noise_less_after_the_low_pass() -> None:
    images, rng = perfect(), np.random.default_rng(0)
    noisy = [np.clip(i + rng.normal(0, 40, i.shape), 0, 255).astype(np.uint8) for i in images]
    same, worse = agreement(images, images), agreement(noisy, images)
    assert (same.psnr, same.ssim, same.fsim, same.frc, same.hf_x) == (float("inf"), 1, 1, 1, 1)
    assert same.as_dict()["psnr"] is None
    assert worse.psnr_low > worse.psnr + 9
    assert worse.hf_x > 2
    assert worse.frc < 1


def test_the_ring_correlation_ends_where_a_low_pass_left_nothing() -> None:
    images = perfect()
    coarse = [i[::4, ::4].repeat(4, 0).repeat(4, 1) for i in images]
    curve = ring_correlation(coarse, images)
    assert curve[0] > 0.8
    assert curve[-8:].mean() < 0.2


def scored(errors_low: tuple[float, ...], hf: float | None = None) -> ModelScores:
    low = 10 * np.log10(255**2 / np.mean(errors_low))
    estimate = Agreement(14, 0.1, 0.7, float(low), 0.7, 0.9, 0.2, 0.1, 0.1, errors_low)
    sample = None if hf is None else replace(estimate, hf_y=hf, hf_x=hf)
    return ModelScores(estimate, sample, 22, 1.0)


def test_a_difference_within_chance_does_not_beat_interpolation() -> None:
    linear, lucky = scored((600.0, 500, 700, 400)), scored((500.0, 600, 500, 500))
    clear = scored((540.0, 450, 630, 361), hf=1.2)
    by_chance = judge({"linear": linear, "mine": lucky})
    assert (by_chance.estimate, by_chance.beats_interpolation, by_chance.texture) == ("linear", False, None)
    beaten = judge({"linear": linear, "mine": clear})
    assert (beaten.estimate, beaten.beats_interpolation, beaten.texture) == ("mine", True, "mine")
    assert "+0.46 dB of structure against linear" in beaten.sentence


def test_a_model_whose_samples_have_too_much_texture_is_not_named_for_it() -> None:
    assert judge({"linear": scored((5.0,)), "noisy": scored((5.0,), hf=3.0)}).texture is None
