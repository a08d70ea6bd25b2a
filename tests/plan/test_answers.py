"""What a run answers and what it refuses: arrays, thickness, sections that are estimated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from test_plan import BARE, LEAN, plan_of

from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.models.card import LINEAR, ModelCard, with_network
from vemdiffuse_pipe.models.sizes.gap import EstimatorSizes, SamplerSizes
from vemdiffuse_pipe.plan.estimate import estimate
from vemdiffuse_pipe.plan.plan import Plan

ESTIMATOR = with_network(replace(BARE, kind="estimator"), EstimatorSizes())
BOTH = with_network(replace(BARE, kind="estimator-sampler", samples=1), SamplerSizes())
SIZE = (50, 10, 10)


def plan_with(card: ModelCard, **tables: dict[str, Any]) -> Plan:
    output = {"url": "b", **tables.pop("output", {})}
    source = {"url": "a", **tables.pop("source", {})}
    return plan_of(size=SIZE, card=card, output=output, source=source, **tables)


@pytest.mark.parametrize(
    ("card", "model", "arrays", "expected"),
    [
        (LINEAR, {}, None, ("em",)),
        (LEAN, {}, None, ("em", "uncertainty")),
        (LEAN, {"samples": 1}, None, ("em",)),
        (LEAN, {}, ["sample", "em"], ("em", "sample")),
        (ESTIMATOR, {}, None, ("em", "uncertainty")),
        (BOTH, {}, None, ("em", "uncertainty")),
        (BOTH, {"samples": 1}, None, ("em", "uncertainty", "sample")),
        (BOTH, {"samples": 4}, None, ("em", "uncertainty", "sample", "sample_spread")),
        (BOTH, {}, ["em", "sample"], ("em", "sample")),
    ],
)
def test_what_is_written_is_what_is_asked_for_or_what_the_model_gives(
    card: ModelCard, model: dict[str, Any], arrays: list[str] | None, expected: tuple[str, ...]
) -> None:
    output = {} if arrays is None else {"arrays": arrays}
    assert plan_with(card, model=model, output=output).arrays == expected


@pytest.mark.parametrize(
    ("card", "arrays", "message"),
    [
        (LINEAR, ["em", "uncertainty"], "uncertainty; model linear .* gives em"),
        (ESTIMATOR, ["em", "sample"], "names sample; .* gives em, uncertainty"),
        (BOTH, ["em", "sample_spread"], "names sample_spread"),
        (BOTH, ["sample"], "needed: em"),
        (BOTH, ["em", "em"], "each name once"),
    ],
)
def test_arrays_that_a_model_cannot_give_are_refused(
    card: ModelCard, arrays: list[str], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        plan_with(card, output={"arrays": arrays})


def test_a_sample_costs_its_evaluations_and_an_estimate_one_pass() -> None:
    alone, with_sample = (plan_with(BOTH, model=m) for m in ({}, {"samples": 1}))
    one, both = (estimate(plan).flop_per_voxel for plan in (alone, with_sample))
    assert one < 1e5
    assert both - one < 7e5
    assert (alone.sampling.samples, alone.n_passes, with_sample.n_passes) == (0, 1, 2)


def test_sections_are_as_thick_as_they_lie_apart_unless_stated_and_planes_as_sections() -> None:
    assert plan_with(BOTH).sectioning_nm == (10, 10, 50, 50)
    stated = plan_with(BOTH, source={"section_thickness_nm": 30}, model={"plane_thickness": "thin"})
    assert stated.sectioning_nm == (10, 10, 30, 10)
    assert stated.identity()["section_thickness_nm"] == 30
    assert stated.identity() != plan_with(BOTH).identity()


def test_what_an_output_of_an_earlier_model_is_known_by_has_not_changed() -> None:
    names = {"section_thickness_nm", "plane_thickness_nm", "arrays", "sections"}
    assert not names & set(plan_with(LEAN, source={"section_thickness_nm": 30}).identity())


@pytest.mark.parametrize(
    ("card", "tables", "message"),
    [
        (BOTH, {"source": {"section_thickness_nm": 60}}, "50 nm apart are not thicker"),
        (LEAN, {"model": {"plane_thickness": "thin"}}, "as thick as sections; leave it out"),
        (LINEAR, {"model": {"sections": "estimate"}}, "makes no estimate of planes at sections"),
    ],
)
def test_thickness_that_cannot_be_and_what_a_model_cannot_do_are_refused(
    card: ModelCard, tables: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        plan_with(card, **tables)


def test_a_model_that_looks_further_bridges_rejected_sections() -> None:
    plan = plan_with(BOTH, source={"rejected_sections": [4]})
    assert plan.gaps.max_ratio == 10
