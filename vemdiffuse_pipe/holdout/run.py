"""The self-test done: places drawn, each model asked, answers compared with what the microscope saw."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.evaluation.agreement import agreement
from vemdiffuse_pipe.evaluation.structure import WIDTH
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.holdout.answers import Answer, Candidate, answer, load_candidate
from vemdiffuse_pipe.holdout.places import Place, draw_places
from vemdiffuse_pipe.holdout.verdict import ModelScores, Verdict, judge
from vemdiffuse_pipe.plan.planes import exact_ratio
from vemdiffuse_pipe.storage.retry import RetryPolicy, with_retries
from vemdiffuse_pipe.survey.contrast import measure_contrast
from vemdiffuse_pipe.volume import Source, Voxels

MODELS = ("linear", "cubic", "flow", "default")
N_PLACES = 8


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What was measured. `scores`: by model, in the order asked.

    `panels`: of the first place, (y, x) by title. `places`: where sections were left out, first voxel of each
    window, zyx. `window_px`: y and x. `r`: of the real gaps.
    """

    scores: dict[str, ModelScores]
    verdict: Verdict
    panels: dict[str, Voxels]
    places: tuple[tuple[int, int, int], ...]
    window_px: tuple[int, int]
    r: int

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        verdict = self.verdict
        return {
            "models": {name: scores.as_dict() for name, scores in self.scores.items()},
            "estimate": verdict.estimate,
            "texture": verdict.texture,
            "beats_interpolation": verdict.beats_interpolation,
            "verdict": verdict.sentence,
            "places": [list(place) for place in self.places],
            "window_px": list(self.window_px),
            "ratio": self.r,
        }


def selftest(
    source: Source,
    models: Sequence[str] = MODELS,
    *,
    n_places: int = N_PLACES,
    device: str = "cpu",
    contrast: tuple[float, float] | None = None,
    on_model: Callable[[str], None] = lambda name: None,
) -> SelfTest:
    """How well each model makes sections of `source` that are left out, at `n_places` places of 256 px.

    What is read and rendered does not grow with the volume. Where one of the models was adapted, places lie
    in what it held back. `contrast`: mean and deviation of the grey levels; measured if None. `on_model`
    hears of each model before it is asked. Raises ConfigError and ModelError for models that cannot be
    tested, SourceError for a volume without tissue, AccessError or TransientError.

    Example:

        >>> from vemdiffuse_pipe import open_source, selftest
        >>> source = open_source("stack.tif", voxel_size_nm=(50, 4.6, 4.6))
        >>> selftest(source, ["linear", "cubic"], n_places=1).verdict.beats_interpolation
        False
    """
    r = max(1, round(exact_ratio(source.spec.frame.voxel_size_nm)))
    if contrast is None:
        contrast = with_retries(lambda: measure_contrast(source), RetryPolicy(), lambda reason: None)
    candidates = [load_candidate(name, source.spec, r, contrast, device) for name in dict.fromkeys(models)]
    reach = max(candidate.card.reach_sections for candidate in candidates)
    places = draw_places(source, n_places, reach, unseen_region(source, candidates))
    scores: dict[str, ModelScores] = {}
    panels = {"section below": places[0].given[reach], "left out": places[0].truth}
    for candidate in candidates:
        on_model(candidate.name)
        started = time.perf_counter()
        answers = [answer(candidate, p, source.spec, contrast, seed) for seed, p in enumerate(places)]
        seconds = time.perf_counter() - started
        scores[candidate.name] = _scores(candidate, answers, places, seconds)
        panels |= _panels(candidate.name, answers[0])
    where, (y, x) = tuple(p.start for p in places), places[0].truth.shape
    return SelfTest(scores, judge(scores), panels, where, (y, x), r)


def unseen_region(source: Source, candidates: Sequence[Candidate]) -> Box | None:
    """Where no model has learnt from: what adapted ones held back; None, anywhere, where none was adapted.

    Raises ConfigError where they held back different parts.
    """
    held = [Box.between(c.card.held_back) for c in candidates if c.card.held_back]
    region = reduce(Box.intersect, held, source.spec.frame.box)
    if min(region.shape[1:]) < WIDTH:
        raise ConfigError(
            "these models were adapted to parts of a volume that leave nothing that none of them has seen; "
            "test them one by one"
        )
    return region if held else None


def _scores(
    candidate: Candidate, answers: Sequence[Answer], places: Sequence[Place], seconds: float
) -> ModelScores:
    truths = [place.truth for place in places]
    samples = [a.sample for a in answers if a.sample is not None]
    return ModelScores(
        agreement([a.estimate for a in answers], truths),
        agreement(samples, truths) if samples else None,
        candidate.ratio,
        seconds,
    )


def _panels(name: str, first: Answer) -> dict[str, Voxels]:
    """What a model made of the first place, by title."""
    estimate = {name: np.ascontiguousarray(first.estimate)}
    return estimate if first.sample is None else {**estimate, f"{name}, one sample": first.sample}
