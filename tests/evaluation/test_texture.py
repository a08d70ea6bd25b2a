"""The texture score: it sees lines along one axis, and needs no truth."""

from __future__ import annotations

import numpy as np
import pytest

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.evaluation.spectrum import texture_score


def _grain(seed: int, deviation: float = 10.0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(128, deviation, (64, 64))
    return np.clip(noise, 0, 255).astype(np.uint8)


def test_grain_of_one_kind_scores_one() -> None:
    planes, sections = [_grain(i) for i in range(4)], [_grain(i) for i in range(4, 8)]
    for axis in (0, 1):
        assert texture_score(planes, sections, axis) == pytest.approx(1, abs=0.1)


def test_lines_score_above_one_across_them_alone() -> None:
    lines = _grain(1) + (np.arange(64)[:, None] % 2 * 20).astype(np.uint8)
    assert texture_score([lines], [_grain(2)], 0) > 1.5
    assert texture_score([lines], [_grain(2)], 1) == pytest.approx(1, abs=0.1)


def test_blur_scores_below_one() -> None:
    assert texture_score([_grain(1, 3.0)], [_grain(2)], 0) < 0.2


def test_flat_images_score_one_and_grain_without_any_in_the_sections_is_infinite() -> None:
    flat = np.full((64, 64), 90, np.uint8)
    assert texture_score([flat], [flat], 0) == 1
    assert texture_score([_grain(1)], [flat], 0) == np.inf


def test_nothing_has_no_score() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        texture_score([], [_grain(1)], 0)
