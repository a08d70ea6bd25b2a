"""Cards of every kind: what a network's sizes say is checked, hostile sizes are refused in a sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vemdiffuse_pipe.config import parse
from vemdiffuse_pipe.errors import ModelError, PlanError
from vemdiffuse_pipe.geometry.frame import Frame, exact_nm
from vemdiffuse_pipe.models.card import LINEAR, ModelCard, read_card, with_network
from vemdiffuse_pipe.models.kinds import KINDS, USUAL_STEPS
from vemdiffuse_pipe.models.sizes.a2i3dem import AxialConfig
from vemdiffuse_pipe.models.sizes.sru3d import Sru3dConfig
from vemdiffuse_pipe.models.sizes.udim import UdimConfig
from vemdiffuse_pipe.plan.plan import Plan, make_plan
from vemdiffuse_pipe.volume import VolumeSpec

SIZES = {"udim": UdimConfig(), "cddpm": UdimConfig(n_conditions=1, ratio=0), "a2i3dem": AxialConfig()}
SIZES |= {"sru3d": Sru3dConfig()}
HOSTILE: dict[str, tuple[str, dict[str, object], str]] = {
    "groups that do not divide": ("udim", {"n_groups": 5}, "groups"),
    "heads that do not divide": ("a2i3dem", {"head": 7}, "heads"),
    "a word for a number": ("udim", {"inner": "32"}, "inner"),
    "no channels": ("sru3d", {"channels": []}, "channels"),
    "more than memory": ("sru3d", {"channels": [2**40]}, "channels"),
    "a number for a claim": ("udim", {"has_difficulty": 1}, "has_difficulty"),
    "an unknown size": ("a2i3dem", {"colour": 3}, "colour"),
    "sizes of another kind": ("sru3d", {"n_basis": 3}, "n_basis"),
    "another context": ("a2i3dem", {"window": 4}, "context_px"),
    "another tile": ("udim", {"tile_px": 128}, "context_px 256"),
    "more sections": ("sru3d", {"reach": 2}, "reach_sections"),
    "another ratio": ("udim", {"ratio": 7}, "ratio 6 to 6"),
}


def card_of(kind: str) -> ModelCard:
    sizes = SIZES[kind]
    low, high = (sizes.ratio, sizes.ratio) if sizes.ratio else (2, 12)
    return with_network(ModelCard("x", kind, "0", True, True, 0, 0, 1, low, high), sizes)


def written(path: Path, card: ModelCard, **sizes: object) -> Path:
    """A checkpoint without tensors, its card's sizes changed."""
    text = json.loads(card.to_json())
    text["sizes"] |= sizes
    header = json.dumps({"__metadata__": {"card": json.dumps(text)}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


@pytest.mark.parametrize("kind", SIZES)
def test_a_card_is_read_as_it_was_written(tmp_path: Path, kind: str) -> None:
    card = card_of(kind)
    assert read_card(written(tmp_path / "x.safetensors", card)) == card
    assert card.network_sizes == SIZES[kind]


@pytest.mark.parametrize("case", HOSTILE)
def test_sizes_that_no_network_has_are_refused(tmp_path: Path, case: str) -> None:
    kind, sizes, said = HOSTILE[case]
    with pytest.raises(ModelError, match=f"model card .*{said}"):
        read_card(written(tmp_path / "x.safetensors", card_of(kind), **sizes))


@pytest.mark.parametrize("length", [0x480, 0x4B50])
def test_a_header_as_long_as_a_pickle_begins_is_read(tmp_path: Path, length: int) -> None:
    """The first two bytes of the file, its length, are then those of a pickle or a zip archive."""
    card, path = card_of("sru3d"), tmp_path / "x.safetensors"
    data = written(path, card).read_bytes()[8:]
    data += b" " * (length - len(data))
    path.write_bytes(len(data).to_bytes(8, "little") + data)
    assert path.read_bytes()[:2] == length.to_bytes(2, "little")
    assert read_card(path) == card


def plan_of(card: ModelCard, **model: object) -> Plan:
    run_file = parse({"source": {"url": "a"}, "output": {"url": "b"}, "model": {"ratio": 6, **model}})
    frame = Frame((9, 300, 400), exact_nm([48, 8, 8]))
    return make_plan(run_file, VolumeSpec("a", "array", frame, "uint8", (1, 64, 64), (1, 64, 64)), card)


@pytest.mark.parametrize(("kind", "tile"), [("udim", 256), ("cddpm", 256), ("sru3d", 128)])
def test_networks_of_one_tile_size_get_it_and_no_other(kind: str, tile: int) -> None:
    assert plan_of(card_of(kind)).lattice.tile_px == (tile, tile)
    with pytest.raises(PlanError, match=f"takes tiles of {tile} px"):
        plan_of(card_of(kind), tile_px=512)


def test_tiles_that_are_not_exact_share_more() -> None:
    assert plan_of(card_of("udim")).lattice.overlap_px == 64
    assert plan_of(card_of("sru3d")).lattice.overlap_px == 32


def test_the_sampler_is_the_cards_or_the_one_asked_for_and_part_of_the_run() -> None:
    card = replace(card_of("udim"), steps=7)
    assert (plan_of(card).sampling.sampler, plan_of(card).sampling.steps) == ("dpmpp-2m", 7)
    for sampler in ("heun", "ancestral"):
        plan = plan_of(card, sampler=sampler)
        assert plan.sampling.steps == USUAL_STEPS[sampler]
        assert plan.identity()["sampler"] == sampler
        assert plan.identity() != plan_of(card).identity()
    with pytest.raises(PlanError, match="draws no samples; leave sampler out"):
        plan_of(LINEAR, sampler="heun")


def test_only_networks_of_grey_levels_are_driven_by_ancestral_chains() -> None:
    lean = with_network(ModelCard("x", "lean", "0", True, True, 0, 0, 1, 2, 12), KINDS["lean"].sizes())
    with pytest.raises(PlanError, match="choose dpmpp-2m or heun"):
        plan_of(lean, sampler="ancestral")


def test_the_contrast_is_asked_for_where_it_is_needed() -> None:
    assert {name for name, kind in KINDS.items() if not kind.needs_contrast} == {
        "interpolation",
        "filter",
        "flow",
        "udim",
        "cddpm",
    }
