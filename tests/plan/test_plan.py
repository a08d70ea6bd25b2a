"""Plans: ratios, shapes, identities by arithmetic; estimates against what is counted block by block."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vemdiffuse_pipe.config import parse
from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.geometry.box import Zyx
from vemdiffuse_pipe.geometry.frame import Frame, exact_nm
from vemdiffuse_pipe.models.card import CUBIC, LINEAR, ModelCard, with_network
from vemdiffuse_pipe.models.sizes.lean import LeanConfig
from vemdiffuse_pipe.plan.estimate import check_size, estimate, gap_flops
from vemdiffuse_pipe.plan.plan import Plan, digest, make_plan
from vemdiffuse_pipe.volume import VolumeSpec

BARE = ModelCard("lean", "lean", "0" * 64, True, True, 0, 0, 1, 2, 12, samples=4, steps=8)
LEAN = with_network(BARE, LeanConfig())


def plan_of(
    shape: Zyx = (20, 1024, 736),
    size: tuple[object, ...] = (50, "4.6", "4.6"),
    card: ModelCard = LEAN,
    **tables: dict[str, object],
) -> Plan:
    run_file = parse({"source": {"url": "a"}, "output": {"url": "b"}, **tables})
    frame = Frame(shape, exact_nm(size))  # type: ignore[arg-type]
    return make_plan(run_file, VolumeSpec("a", "array", frame, "uint8", (1, 64, 64), (1, 64, 64)), card)


def test_a_ratio_that_is_not_whole_is_taken_as_the_nearest_and_the_rest_is_said() -> None:
    plan = plan_of()
    assert plan.gaps.r == 11
    assert plan.output.shape == (19 * 11 + 1, 1024, 736)
    assert plan.anisotropy == pytest.approx(50 / 11 / 4.6)


def test_a_tie_is_refused_with_both_choices_named_and_taken_when_one_is_chosen() -> None:
    with pytest.raises(PlanError, match=r"--ratio 12 or --ratio 13"):
        plan_of(size=(50, 4, 4))
    assert plan_of(size=(50, 4, 4), model={"ratio": 12}).gaps.r == 12


def test_a_ratio_of_one_and_a_half_is_two_since_one_generates_nothing() -> None:
    assert plan_of(size=(12, 8, 8)).gaps.r == 2


@pytest.mark.parametrize("dz", [4, 8, 11])
def test_an_isotropic_volume_is_refused(dz: int) -> None:
    with pytest.raises(PlanError, match="isotropic already"):
        plan_of(size=(dz, 8, 8))


def test_a_ratio_outside_the_models_range_is_refused() -> None:
    with pytest.raises(PlanError, match="2 to 12"):
        plan_of(model={"ratio": 13})
    with pytest.raises(PlanError, match="22"):
        plan_of(source={"url": "a", "rejected_sections": [4]})


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"run": {"block_shape": [64, 500, 512]}}, r"whole shards of .*; nearest: \(64, 512, 512\)"),
        ({"output": {"url": "b", "chunk_shape": [64, 64, 64], "shard_shape": [64, 100, 512]}}, "multiple"),
        ({"output": {"url": "b", "format": "ome-zarr-0.4", "shard_shape": [64, 512, 512]}}, "no shards"),
        ({"model": {"tile_px": 100}}, "multiples of 8"),
        ({"model": {"tile_px": 64, "overlap_px": 40}}, "half a tile"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(tables: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan_of(**tables)


def test_samples_of_a_model_that_draws_none_are_refused() -> None:
    with pytest.raises(PlanError, match="draws no samples"):
        plan_of(card=LINEAR, model={"samples": 2})
    assert plan_of(card=LINEAR).arrays == ("em",)
    assert plan_of().arrays == ("em", "uncertainty")


def test_cubic_cannot_bridge() -> None:
    with pytest.raises(PlanError, match="cannot bridge"):
        plan_of(card=CUBIC, source={"url": "a", "rejected_sections": [3]})


def test_the_identity_holds_what_changes_voxels_and_nothing_else() -> None:
    base = digest(plan_of().identity())
    same = [{"run": {"block_shape": [64, 512, 512]}}, {"run": {"workers": 3, "tile_batch": 7}}]
    assert all(digest(plan_of(**tables).identity()) == base for tables in same)
    other = [
        {"model": {"seed": 1}},
        {"model": {"steps": 9}},
        {"model": {"samples": 2}},
        {"model": {"tile_px": 256}},
    ]
    other += [
        {"model": {"ratio": 10}},
        {"source": {"url": "a", "contrast": [1, 2]}},
        {"model": {"precision": "bfloat16"}},
    ]
    assert len({digest(plan_of(**tables).identity()) for tables in other} | {base}) == 8


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(2, 9), st.integers(8, 90), st.integers(8, 90)),
    st.integers(2, 6) | st.fractions(Fraction(3, 2), 6, max_denominator=9),
    st.tuples(st.integers(1, 20), st.integers(8, 50), st.integers(8, 50)),
)
def test_sums_over_axes_are_what_counting_block_by_block_gives(
    shape: Zyx, r: int | Fraction, block: Zyx
) -> None:
    plan = plan_of(
        shape,
        (8 * r, 8, 8),
        output={"url": "b", "chunk_shape": [1, 1, 1], "shard_shape": [1, 1, 1]},
        run={"block_shape": block},
        model={"tile_px": 24, "overlap_px": 8, "grid": "exact"},
    )
    assert plan.gaps.r == r
    figures = estimate(plan)
    boxes = [plan.blocks.box(i) for i in range(plan.blocks.n_blocks)]
    gaps = [[gap.n_planes for gap in plan.gaps.touching(b.start[0], b.stop[0])] for b in boxes]
    tiles = [plan.lattice.n_touching(b) for b in boxes]
    rendered = sum(len(g) * t for g, t in zip(gaps, tiles, strict=True))
    assert figures.n_tiles_rendered == rendered * plan.sampling.samples
    assert figures.read_bytes == sum(plan.source_box(b).n_voxels for b in boxes)
    generated = np.count_nonzero(plan.gaps.provenance() == 2) * prod(plan.output.shape[1:])
    tile = prod(plan.lattice.tile_px)
    pixels = sum(sum(g) * t for g, t in zip(gaps, tiles, strict=True)) * tile
    assert figures.renders_per_voxel == pytest.approx(pixels / generated)
    assert figures.flop == pytest.approx(sum(sum(gap_flops(plan, b)) for b in boxes))
    assert figures.output_bytes == 2 * prod(plan.output.shape)


def test_a_run_that_would_not_fit_in_memory_is_refused_with_the_figure() -> None:
    plan = plan_of(shape=(200, 9000, 9000), run={"block_shape": [64, 9000 // 512 * 512 + 512, 8704 + 512]})
    figures = estimate(plan, n_threads=2)
    with pytest.raises(PlanError, match="GB"):
        check_size(plan, figures, available_bytes=4 * 10**9)
    check_size(plan, figures, available_bytes=10**12)


def test_planning_needs_no_torch_and_no_dask() -> None:
    code = (
        "import sys, vemdiffuse_pipe.plan.estimate; "
        "sys.exit(any(m in sys.modules for m in ('torch', 'dask', 'distributed', 'tensorstore')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
