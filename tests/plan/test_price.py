"""The price page by arithmetic: hours, overlap, requests, money, what helps, and what is refused."""

from __future__ import annotations

from math import ceil

import pytest
from test_plan import plan_of

from vemdiffuse_pipe.config import PriceTable, parse
from vemdiffuse_pipe.errors import PlanError, SourceError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import Frame, exact_nm
from vemdiffuse_pipe.models.card import LINEAR
from vemdiffuse_pipe.plan.assumed import assumed_spec, check_assumed
from vemdiffuse_pipe.plan.estimate import estimate, gap_flops
from vemdiffuse_pipe.plan.plan import Plan, make_plan
from vemdiffuse_pipe.pricing.plan_price import Speed, check_limit, price, stated_speed
from vemdiffuse_pipe.volume import VolumeSpec

SHAPE = (20, 1024, 1536)  # at r = 5: 96 planes, 2 x 1 x 2 blocks
SIZE = (40, 8, 8)


def speed_of(
    plan: Plan, *, render_s: float, read_s: float = 0.0, cpu_s: float = 0.0, gpu: bool = True
) -> Speed:
    """A worker that does the whole of the plan in `render_s`, having read in `read_s`."""
    figures = estimate(plan)
    return Speed(figures.flop, render_s, gpu, "as told", figures.read_bytes, read_s, cpu_s, 0.25)


@pytest.mark.parametrize(
    ("render_s", "read_s", "seconds", "bound_by"),
    [(7200.0, 3600.0, 7200.0, "rendering"), (3600.0, 9000.0, 9000.0, "reading")],
)
def test_on_a_gpu_the_slower_of_reading_and_rendering_counts(
    render_s: float, read_s: float, seconds: float, bound_by: str
) -> None:
    plan = plan_of(SHAPE, SIZE)
    found = price(plan, speed_of(plan, render_s=render_s, read_s=read_s), n_workers=2, n_threads=4)
    assert found.unit_hours == pytest.approx(seconds / 3600)
    assert (found.unit, found.is_bound_by) == ("GPU", bound_by)
    assert found.wall_s == pytest.approx(seconds / 2)


def test_on_a_cpu_decoding_takes_time_from_rendering_and_every_core_counts() -> None:
    plan = plan_of(SHAPE, SIZE)
    speed = speed_of(plan, render_s=7200.0, read_s=4000.0, cpu_s=3600.0, gpu=False)
    found = price(plan, speed, n_workers=1, n_threads=4)
    assert found.wall_s == pytest.approx(7200.0 + 3600.0 / 4)
    assert (found.unit, found.unit_hours) == ("core", pytest.approx(4 * 8100.0 / 3600))


def test_no_more_workers_than_blocks_are_busy() -> None:
    plan = plan_of(SHAPE, SIZE)
    assert plan.blocks.n_blocks == 4
    found = price(plan, speed_of(plan, render_s=400.0), n_workers=64, n_threads=1)
    assert (found.n_workers, found.wall_s) == (4, pytest.approx(100.0))


def counted_chunks(plan: Plan) -> tuple[int, int]:
    """Chunks that each block touches and voxels in them, block by block."""
    n_chunks = n_voxels = 0
    for block in range(plan.blocks.n_blocks):
        touched = plan.source_box(plan.blocks.box(block)).whole(plan.source.chunk_shape)
        z, y, x = (ceil(n / c) for n, c in zip(touched.shape, plan.source.chunk_shape, strict=True))
        n_chunks += z * y * x
        n_voxels += touched.intersect(plan.source.frame.box).n_voxels
    return n_chunks, n_voxels


@pytest.mark.parametrize("region", [None, [[3, 100, 200], [15, 900, 1500]]])
def test_reads_of_chunks_are_those_that_blocks_touch(region) -> None:
    plan = plan_of(SHAPE, SIZE, source={"url": "a", "region": region})
    figures = estimate(plan)
    assert not plan.by_columns
    assert (figures.n_chunk_reads, figures.chunk_read_bytes) == counted_chunks(plan)
    blocks = [plan.blocks.box(block) for block in range(plan.blocks.n_blocks)]
    assert sum(sum(gap_flops(plan, box)) for box in blocks) == pytest.approx(figures.flop)


def test_a_chunk_that_serves_a_column_is_read_once() -> None:
    run_file = parse({"source": {"url": "a"}, "output": {"url": "b"}})
    frame = Frame(SHAPE, exact_nm(SIZE))
    plan = make_plan(run_file, VolumeSpec("a", "array", frame, "uint16", (64, 64, 64), (64, 64, 64)), LINEAR)
    assert plan.by_columns
    assert estimate(plan).n_chunk_reads == 16 * 24  # blocks end at chunks
    assert estimate(plan).chunk_read_bytes == 2 * 20 * 1024 * 1536


def test_money_is_what_the_run_file_says_of_each() -> None:
    prices = {
        "gpu_hour": 3.0,
        "egress_gb": 0.5,
        "requests_million": 4.0,
        "storage_gb_month": 0.02,
        "currency": "EUR",
    }
    plan = plan_of(SHAPE, SIZE, price=prices)
    figures = estimate(plan)
    found = price(plan, speed_of(plan, render_s=36_000.0), n_workers=1, n_threads=1, wanted_share=0.5)
    assert found.unit_hours == pytest.approx(5.0)
    assert found.bytes_in == pytest.approx(0.25 * 0.5 * figures.chunk_read_bytes)
    assert found.n_puts == pytest.approx(0.5 * 2 * figures.n_shards)
    assert found.costs["compute"] == pytest.approx(15.0)
    assert found.costs["egress"] == pytest.approx(found.bytes_in / 1e9 * 0.5)
    assert found.costs["requests"] == pytest.approx((found.n_reads + found.n_puts) / 1e6 * 4)
    assert found.costs["storage_a_month"] == pytest.approx(0.5 * figures.output_bytes / 1e9 * 0.02)
    assert found.total == pytest.approx(sum(found.costs.values()) - found.costs["storage_a_month"])


def test_nothing_is_priced_that_has_no_price() -> None:
    plan = plan_of(SHAPE, SIZE, price={"core_hour": 1.0})
    assert not price(plan, speed_of(plan, render_s=1.0), n_workers=1, n_threads=1).costs


def test_what_would_be_cheaper_is_ranked_and_says_whether_voxels_change() -> None:
    plan = plan_of((200, 4096, 4096), SIZE)  # K = 4, 8 evaluations, float32
    found = price(plan, speed_of(plan, render_s=1e6), n_workers=1, n_threads=1).savings
    factors = {saving.change: saving.factor for saving in found}
    assert [saving.factor for saving in found] == sorted(factors.values(), reverse=True)
    assert factors["samples = 1"] == pytest.approx(4)
    assert factors["steps = 4"] == pytest.approx(2)
    assert factors["precision = bfloat16, about"] == pytest.approx(1.8)
    assert factors["a region or a mask of 10% of it"] == pytest.approx(10)
    larger = plan_of((200, 4096, 4096), SIZE, run={"block_shape": [64, 2048, 2048]})
    assert factors["block_shape = [64, 2048, 2048]"] == pytest.approx(
        estimate(plan).flop / estimate(larger).flop
    )
    same = {saving.change for saving in found if saving.is_same_volume}
    assert same == {"a region or a mask of 10% of it", "block_shape = [64, 2048, 2048]"}
    assert found[0].change == "model linear, a preview"


def test_where_reading_is_slowest_what_saves_rendering_does_not_help() -> None:
    plan = plan_of((200, 4096, 4096), SIZE)
    speed = speed_of(plan, render_s=1e6, read_s=2e6)
    changes = {saving.change for saving in price(plan, speed, n_workers=1, n_threads=1).savings}
    assert not changes & {"samples = 1", "steps = 4", "precision = bfloat16, about"}


def test_a_stated_speed_is_operations_over_time() -> None:
    plan = plan_of(SHAPE, SIZE)
    found = price(plan, stated_speed(PriceTable(tflops=50.0)), n_workers=1, n_threads=8)
    assert found.unit_hours == pytest.approx(estimate(plan).flop / 50e12 / 3600)
    with pytest.raises(PlanError, match="tflops"):
        stated_speed(PriceTable())


def test_a_run_over_the_limit_is_refused_with_what_would_bring_it_under() -> None:
    plan = plan_of((200, 4096, 4096), SIZE)
    found = price(plan, speed_of(plan, render_s=3600 * 30.0), n_workers=1, n_threads=1)
    check_limit(found, PriceTable(max_gpu_hours=30.0, max_core_hours=1.0))
    with pytest.raises(PlanError) as refused:
        check_limit(found, PriceTable(max_gpu_hours=10.0))
    said = str(refused.value)
    assert "30 GPU-hours; max_gpu_hours is 10" in said
    assert "3 times shorter" in said
    assert "samples = 1, a region or a mask of 33 % of it" in said


ASSUME = {"shape": [5, 6, 7], "voxel_size_nm": [40.0, 4.6, 4.6], "chunk_shape": [1, 2, 3], "dtype": "uint16"}


def test_an_assumed_source_is_what_the_table_says() -> None:
    spec = assumed_spec(parse({"source": {"url": "a", "assume": ASSUME}, "output": {"url": "b"}}).source)
    assert spec.frame == Frame((5, 6, 7), exact_nm([40, "4.6", "4.6"]))
    assert (spec.dtype, spec.chunk_shape, spec.frame.box) == ("uint16", (1, 2, 3), Box.of_shape((5, 6, 7)))


@pytest.mark.parametrize(
    ("source", "said"),
    [({}, "source.assume"), ({"assume": ASSUME, "region_nm": [[0, 0, 0], [9, 9, 9]]}, "give region")],
)
def test_an_offline_plan_that_is_told_too_little_is_refused(source, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        assumed_spec(parse({"source": {"url": "a", **source}, "output": {"url": "b"}}).source)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"shape": [5, 6, 8]}, r"shape is \(5, 6, 7\), not \(5, 6, 8\)"),
        ({"voxel_size_nm": [40.0, 4.6, 4.7]}, "voxel_size_nm is 40 x 4.6 x 4.6, not 40 x 4.6 x 4.7"),
        ({"chunk_shape": [1, 2, 2]}, r"chunk_shape is \(1, 2, 3\), not \(1, 2, 2\)"),
        ({"dtype": "uint8"}, "dtype is uint16, not uint8"),
    ],
)
def test_a_source_that_is_not_as_assumed_is_refused_by_name(changed, said: str) -> None:
    def table_of(assume):
        return parse({"source": {"url": "a", "assume": assume}, "output": {"url": "b"}}).source

    found = assumed_spec(table_of(ASSUME))
    check_assumed(table_of(ASSUME), found)
    with pytest.raises(SourceError, match=said):
        check_assumed(table_of({**ASSUME, **changed}), found)
