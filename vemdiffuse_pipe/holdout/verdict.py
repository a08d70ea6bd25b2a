"""Which model to use for what, in one sentence, from what was measured place by place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vemdiffuse_pipe.evaluation.agreement import Agreement

INTERPOLATIONS = ("linear", "cubic")
DEVIATIONS = 2.0  # of the mean of the differences, beyond which a difference is taken for one
RIGHT_TEXTURE = (0.5, 2.0)  # energy of fine texture over that of measured sections


@dataclass(frozen=True, slots=True)
class ModelScores:
    """How well a model's best estimate agrees with the sections that were left out, and how well one sample.

    `sample`: None where the model draws none. `ratio`: of the gap that it was asked to fill. `seconds`: of
    rendering, for all places.
    """

    estimate: Agreement
    sample: Agreement | None
    ratio: int
    seconds: float

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        sample = None if self.sample is None else self.sample.as_dict()
        return {
            "estimate": self.estimate.as_dict(),
            "sample": sample,
            "ratio": self.ratio,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """`estimate`: the model for measuring and segmenting. `texture`: that whose samples look like sections.

    `texture`: None where no model draws samples of the right texture. `beats_interpolation`: True where
    `estimate` is clearly nearer to the sections than linear and cubic interpolation, by structure.
    """

    estimate: str
    texture: str | None
    beats_interpolation: bool
    sentence: str


def judge(scores: Mapping[str, ModelScores]) -> Verdict:
    """The verdict over models in order: of two that do not differ clearly the earlier one is taken."""
    best = next(iter(scores))
    for name in scores:
        if gain_db(scores[name].estimate, scores[best].estimate) > 0 and _is_clear(scores, name, best):
            best = name
    rivals = [name for name in INTERPOLATIONS if name in scores]
    beats = best not in INTERPOLATIONS and all(_is_clear(scores, best, rival) for rival in rivals)
    texture = _texture(scores)
    return Verdict(best, texture, beats, _sentence(scores, best, texture, beats))


def gain_db(ours: Agreement, theirs: Agreement) -> float:
    """By how much an answer is nearer to the truth than another one, after the low-pass: dB."""
    return ours.psnr_low - theirs.psnr_low if ours.psnr_low != theirs.psnr_low else 0.0


def _is_clear(scores: Mapping[str, ModelScores], better: str, worse: str) -> bool:
    """True where `better` is better by more than chance: the mean over places of differences in dB."""
    ours, theirs = (np.log10(np.maximum(scores[n].estimate.errors_low, 1e-9)) for n in (better, worse))
    differences = 10 * (theirs - ours)
    if len(differences) < 2:
        return bool(differences.mean() > 0)
    return bool(differences.mean() > DEVIATIONS * differences.std(ddof=1) / math.sqrt(len(differences)))


def _texture(scores: Mapping[str, ModelScores]) -> str | None:
    """The model whose samples have the texture of sections, and among those the best features."""
    low, high = RIGHT_TEXTURE
    samples = {name: s.sample for name, s in scores.items() if s.sample is not None}
    right = {n: a for n, a in samples.items() if low <= min(a.hf_y, a.hf_x) <= max(a.hf_y, a.hf_x) <= high}
    return max(right, key=lambda name: right[name].fsim, default=None)


def _sentence(scores: Mapping[str, ModelScores], best: str, texture: str | None, beats: bool) -> str:
    rivals = {n: scores[n].estimate.psnr_low for n in INTERPOLATIONS if n in scores}
    strongest = max(rivals, key=lambda n: rivals[n], default=None)
    against = ""
    if strongest is not None and best != strongest:
        gain = gain_db(scores[best].estimate, scores[strongest].estimate)
        against = f", {gain:+.2f} dB of structure against {strongest}"
    what = f"for measuring and segmenting use {best}{against}" + (
        "" if beats or best in INTERPOLATIONS else " (within chance)"
    )
    draws = (
        f"for planes that look like sections one sample of {texture}"
        if texture
        else "no model here draws planes that look like sections"
    )
    none = "" if beats else "no model clearly beats interpolation; "
    return (
        f"{none}{what}; {draws}; the gaps of this test are twice as wide as the real ones, so expect better "
        "where it counts."
    )
