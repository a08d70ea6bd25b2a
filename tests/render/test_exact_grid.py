"""On an exact grid planes lie as far apart as pixels, wherever the sections are."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from test_block import SECTIONS, SHAPE, model_of, small_checkpoint
from torch import Tensor

from vemdiffuse_pipe.config import parse
from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Frame, exact_nm
from vemdiffuse_pipe.geometry.gaps import Gaps
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.geometry.plane_groups import Provenance
from vemdiffuse_pipe.models.a2i3dem import AxialNetwork
from vemdiffuse_pipe.models.card import ModelCard, find_card, with_network
from vemdiffuse_pipe.models.onepass import AxialRestoration, interpolated, rows_of_gap
from vemdiffuse_pipe.models.protocol import GapView, Settings
from vemdiffuse_pipe.models.sizes.a2i3dem import AxialConfig
from vemdiffuse_pipe.models.sizes.udim import UdimConfig
from vemdiffuse_pipe.plan.estimate import estimate
from vemdiffuse_pipe.plan.plan import Plan, digest, make_plan
from vemdiffuse_pipe.plan.planes import exact_grid
from vemdiffuse_pipe.render.block import render_block
from vemdiffuse_pipe.volume import VolumeSpec, Voxels

FANC = (45, "4.3", "4.3")  # dz / dxy is 450 / 43: of these five sections only the first is a plane
THIRDS = (30, 9, 9)  # 10 / 3: section 3 is plane 10
HEIGHTS = {FANC: Fraction(450, 43), THIRDS: Fraction(10, 3)}


def plan_of(
    model: str,
    size: tuple[object, ...] = THIRDS,
    card: ModelCard | None = None,
    source: Mapping[str, object] = {},
    **table: object,
) -> Plan:
    run_file = parse(
        {
            "source": {"url": "memory", "contrast": [128.0, 64.0], **source},
            "output": {"url": "memory", "chunk_shape": [1, 1, 1], "shard_shape": [1, 1, 1]},
            "model": {"name": model, "grid": "exact", **table},
            "run": {"block_shape": [100, 100, 100]},
        }
    )
    spec = VolumeSpec("memory", "array", Frame(SHAPE, exact_nm(size)), "uint8", (1, 1, 1), (1, 1, 1))
    return make_plan(run_file, spec, card or find_card(model))


def render(plan: Plan, box: Box) -> Voxels:
    return render_block(plan, model_of(plan), SECTIONS[plan.source_box(box).slices], box)["em"]


@pytest.mark.parametrize("size", HEIGHTS)
@pytest.mark.parametrize(("model", "order"), [("linear", 1), ("cubic", 3)])
def test_interpolation_is_that_of_the_whole_volume_at_the_heights_of_the_planes(
    size: tuple[object, ...], model: str, order: int
) -> None:
    plan = plan_of(model, size)
    n_planes = plan.output.shape[0]
    assert n_planes == (SHAPE[0] - 1) * HEIGHTS[size] // 1 + 1
    heights = [float(plane / HEIGHTS[size]) for plane in range(n_planes)]
    at = np.meshgrid(heights, *(np.arange(n) for n in SHAPE[1:]), indexing="ij")
    expected = map_coordinates(SECTIONS.astype(np.float64), at, order=order, mode="mirror")
    ours = render(plan, plan.output.box).astype(int)
    assert np.abs(ours - to_grey(expected.astype(np.float32))).max() <= 1
    assert np.mean(ours == to_grey(expected.astype(np.float32))) > 0.999


def test_a_section_that_a_plane_falls_on_is_kept_and_no_other() -> None:
    plan = plan_of("linear")
    planes = render(plan, plan.output.box)
    assert np.array_equal(planes[[0, 10]], SECTIONS[[0, 3]])
    assert [*np.flatnonzero(plan.provenance() == Provenance.MEASURED)] == [0, 10]
    assert (plan.provenance()[[1, 9, 11, 13]] == Provenance.GENERATED).all()


def test_planes_are_as_far_apart_as_pixels_and_begin_at_the_first_section() -> None:
    plan = plan_of("linear", FANC)
    assert plan.output.voxel_size_nm == exact_nm(["4.3"] * 3)
    assert plan.output.centre_nm == plan.source.frame.centre_nm
    assert plan.anisotropy == 1
    assert plan.identity()["ratio"] == "450/43"


@pytest.mark.parametrize("model", ["cubic", "network"])
@settings(max_examples=12, deadline=None)
@given(st.tuples(*(st.integers(0, n - 1) for n in (14, 53, 71))), st.tuples(*(st.integers(1, 30),) * 3))
def test_any_box_gets_the_voxels_of_the_whole(model: str, start: Zyx, size: Zyx) -> None:
    tiles = {"tile_px": 32, "overlap_px": 8}
    plan = plan_of(model) if model == "cubic" else plan_of(small_checkpoint(), **tiles)
    box = Box.of_shape(size, start).intersect(plan.output.box)
    assert np.array_equal(render(plan, box), render(plan, plan.output.box)[box.slices])


class Untouched(AxialNetwork):
    """Restores nothing."""

    def forward(self, planes: Tensor) -> Tensor:
        return planes


@pytest.mark.parametrize("size", HEIGHTS)
@pytest.mark.parametrize(("reach", "has_both_axes"), [(0, False), (1, True), (2, False)])
def test_axial_planes_hold_rows_at_the_heights_of_the_planes(
    size: tuple[object, ...], reach: int, has_both_axes: bool
) -> None:
    config = AxialConfig((8, 8), 1, 4, 4, reach, has_both_axes)
    card = with_network(ModelCard("axial", "a2i3dem", "", True, True, 0, 0, 1, 2, 12), config)
    plan, linear = plan_of("axial", size, card), plan_of("linear", size)
    model = AxialRestoration(card, Untouched(config), Settings(contrast=(128.0, 64.0)))
    box = plan.output.box
    ours = render_block(plan, model, SECTIONS[plan.source_box(box).slices], box)["em"]
    assert np.abs(ours.astype(int) - render(linear, box)).max() <= 1


def test_rows_of_axial_planes_go_on_evenly_beyond_the_gap() -> None:
    """What the network sees is the whole volume interpolated once, cut at sections."""
    seen: list[Tensor] = []

    class Noted(Untouched):
        def forward(self, planes: Tensor) -> Tensor:
            seen.append(planes)
            return planes

    config = AxialConfig((8, 8), 1, 4, 4, 1)
    card = with_network(ModelCard("axial", "a2i3dem", "", True, True, 0, 0, 1, 2, 12), config)
    plan = plan_of("axial", card=card)
    heights = np.broadcast_to((np.arange(SHAPE[0]) * 10.0)[:, None, None], SHAPE).astype(np.uint8)
    gap_of_6 = Box((6, 0, 0), (7, 8, 8))
    model = AxialRestoration(card, Noted(config), Settings(contrast=(0.0, 1.0)))
    render_block(plan, model, heights[plan.source_box(gap_of_6).slices], gap_of_6)
    rows = seen[0][0, 0, :, 0]  # planes 0 to 10, from section 0 to section 3; 6 lies between 1 and 2
    assert torch.allclose(rows, torch.tensor([*range(11), 10, 10, 10, 10, 10]) * 3.0, atol=1e-4)


@pytest.mark.parametrize("r", [Fraction(10, 3), Fraction(450, 43), Fraction(8, 5), 3])
def test_rows_are_the_planes_from_the_lowest_section_to_the_highest(r: Fraction | int) -> None:
    """Float64 positions are off by a rounding; a plane that lies on a section is a row nevertheless."""
    gaps = Gaps(41, r)
    for gap in gaps.touching(0, gaps.n_planes):
        planes = range(gap.first_plane, gap.first_plane + gap.n_planes)
        positions = torch.tensor([gap.position(p) for p in planes], dtype=torch.float64)
        first, wanted = rows_of_gap(GapView(torch.empty(0), positions, float(gap.ratio)), 2)
        lowest = ceil((gap.lower - 2) * r)  # the first plane that is not below the lowest section
        assert first == pytest.approx(float(lowest - (gap.lower - 2) * r), abs=1e-9)
        assert wanted == [p - lowest for p in planes]
        sections = (torch.arange(6) * 1.0)[None, :, None, None]
        rows = interpolated(sections, float(gap.ratio), first)[0, :, 0, 0]
        assert len(rows) == floor((gap.lower + 3) * r) - lowest + 1
        heights = torch.tensor([float((lowest + i) / r) - (gap.lower - 2) for i in range(len(rows))])
        assert torch.allclose(rows, heights, atol=1e-5)


def test_as_many_voxels_are_estimated_as_are_made() -> None:
    exact = estimate(plan_of("linear", FANC))
    assert exact.renders_per_voxel == 1
    assert exact.output_voxels == 42 * 53 * 71


def test_an_exact_grid_of_a_whole_ratio_is_the_same_run_as_a_whole_one() -> None:
    exact, whole = plan_of("linear", (30, 10, 10)), plan_of("linear", (30, 10, 10), grid="whole")
    assert exact.identity() == whole.identity()
    assert repr(exact.identity()["ratio"]) == "3"
    assert digest(exact.identity()) == "786114b718c26fd8"  # as before there were exact grids


@pytest.mark.parametrize("model", ["linear", "network"])
def test_rejected_sections_are_bridged_at_the_heights_of_their_planes(model: str) -> None:
    tables = {"tile_px": 32, "overlap_px": 8}
    name, given = ("linear", {}) if model == "linear" else (small_checkpoint(), tables)
    plan = plan_of(name, source={"rejected_sections": [1, 3]}, **given)
    planes = render(plan, plan.output.box)
    for plane, (lower, upper) in {3: (0, 2), 4: (0, 2), 9: (2, 4), 10: (2, 4), 11: (2, 4)}.items():
        t = (plane / HEIGHTS[THIRDS] - lower) / (upper - lower)
        expected = SECTIONS[lower] * (1 - float(t)) + SECTIONS[upper] * float(t)
        if model == "linear":
            assert np.abs(planes[plane] - expected).max() <= 0.6
        assert plan.provenance()[plane] == Provenance.BRIDGED
    box = Box((9, 5, 7), (11, 40, 60))
    assert np.array_equal(render(plan, box), planes[box.slices])


@pytest.mark.parametrize("size", [("40", "5.00000007"), ("40", "4.99999993"), ("33.3333321", "3.33333325")])
def test_lengths_that_were_rounded_to_float32_keep_their_sections(size: tuple[str, str]) -> None:
    dz, dxy = size
    plan = plan_of("linear", (dz, dxy, dxy))
    assert repr(plan.gaps.r) == ("8" if dz == "40" else "10")
    assert np.count_nonzero(plan.provenance() == Provenance.MEASURED) == SHAPE[0]


def test_lengths_of_many_digits_are_taken_at_their_word_where_the_volume_is_long_enough_to_tell() -> None:
    frame = Frame((10**6, 8, 8), exact_nm(["40.000001", 4, 4]))
    assert exact_grid(frame) != 10
    assert exact_grid(Frame((100, 8, 8), exact_nm(["40.000001", 4, 4]))) == 10


@given(st.fractions(Fraction(3, 2), 20, max_denominator=100))
def test_a_ratio_of_small_numbers_is_exact(r: Fraction) -> None:
    assert exact_grid(Frame((1000, 8, 8), (r * 7, Fraction(7), Fraction(7)))) == r


def test_gaps_narrower_than_two_planes_are_filled_on_an_exact_grid() -> None:
    plan = plan_of(small_checkpoint(), (8, 5, 5), tile_px=32, overlap_px=8)
    assert plan.gaps.r == Fraction(8, 5)
    assert render(plan, plan.output.box).shape == (7, *SHAPE[1:])
    assert [*np.flatnonzero(plan_of("linear", (8, 5, 5)).provenance() == 2)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"ratio": 3}, "ratio 3 and an exact grid"),
        ({"task": "denoise", "name": "gaussian"}, "makes no planes between sections"),
    ],
)
def test_what_contradicts_an_exact_grid_is_refused(table: dict[str, object], message: str) -> None:
    name, task = str(table.get("name", "linear")), table.get("task", "isotropic")
    with pytest.raises(PlanError, match=message):
        plan_of(name, card=find_card(name, task), **table)  # type: ignore[arg-type]


def test_a_network_that_knows_its_planes_by_their_numbers_is_refused_unless_r_is_whole() -> None:
    udim = with_network(ModelCard("u", "udim", "", True, False, 0, 0, 1, 3, 3), UdimConfig(ratio=3))
    with pytest.raises(PlanError, match=r"knows its planes by their numbers.*3\.33333 a section"):
        plan_of("u", card=udim)
    assert plan_of("u", (27, 9, 9), udim).gaps.r == 3


def test_an_isotropic_volume_has_no_exact_grid_to_make() -> None:
    with pytest.raises(PlanError, match="isotropic already"):
        plan_of("linear", (10, 9, 9))


def test_a_ratio_outside_the_models_is_refused_also_on_an_exact_grid() -> None:
    with pytest.raises(PlanError, match=r'2 to 12; this volume needs 12\.5; .* grid = "whole"'):
        plan_of(small_checkpoint(), (50, 4, 4))
