"""What is measured for a price: one block of those that are wanted, by a clock that is given."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from small_runs import small_run

from vemdiffuse_pipe.errors import MissingDataError, PlanError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.plan.estimate import gap_flops
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.pricing.measured_block import measure_speed
from vemdiffuse_pipe.pricing.plan_price import Speed
from vemdiffuse_pipe.records.shards import ShardSet
from vemdiffuse_pipe.running.reconstruct import prepare
from vemdiffuse_pipe.testing import ArraySource, Failure, FlakySource
from vemdiffuse_pipe.volume import Source


def speed_of(plan: Plan, source: Source, outside: ShardSet | None = None, **budget: float) -> Speed:
    """Measured by a clock that goes on by a second each time it is looked at."""
    ticks = count()
    clock = lambda: float(next(ticks))  # noqa: E731
    return measure_speed(plan, source, outside or ShardSet(plan.shards), clock=clock, **budget)


def box_of(plan: Plan, speed: Speed) -> Box:
    """The block that was measured, by its name."""
    return next(b for b in map(plan.blocks.box, range(plan.blocks.n_blocks)) if f"block {b}," in speed.origin)


def test_a_block_from_the_middle_is_read_and_its_gaps_rendered(tmp_path: Path) -> None:
    source, plan = prepare(small_run(tmp_path))
    speed = speed_of(plan, source)
    box = box_of(plan, speed)
    assert 0 < plan.blocks.index_of(box.start) < plan.blocks.n_blocks - 1
    flops = gap_flops(plan, box)
    assert speed.flop == pytest.approx(sum(flops[1:]))  # the first pays for what is done once
    assert speed.render_s == len(flops) - 1
    assert speed.read_bytes == plan.source_box(box).n_voxels
    assert not Path(plan.run_file.output.url).exists()


def test_no_gap_is_begun_when_the_time_is_up(tmp_path: Path) -> None:
    source, plan = prepare(small_run(tmp_path, run={"block_shape": (32, 48, 64)}))
    speed = speed_of(plan, source, budget_s=3.0)
    assert speed.flop == pytest.approx(sum(gap_flops(plan, plan.blocks.box(0))[1:3]))
    assert (speed.render_s, "from 3 of 6 gaps" in speed.origin) == (2.0, True)


def test_only_what_is_wanted_is_measured(tmp_path: Path) -> None:
    source, plan = prepare(small_run(tmp_path))
    wanted = ShardSet(plan.shards)
    wanted.add(5)
    speed = speed_of(plan, source, ~wanted)
    assert box_of(plan, speed) == plan.blocks.box(plan.blocks.index_of(plan.shards.box(5).start))


def test_a_block_that_cannot_be_read_is_passed_over_and_none_is_refused(tmp_path: Path) -> None:
    source, plan = prepare(small_run(tmp_path))
    first = box_of(plan, speed_of(plan, source))
    voxels = ArraySource.of_shape(plan.source.shape)
    hole = Failure(plan.source_box(first), 1, MissingDataError)
    assert box_of(plan, speed_of(plan, FlakySource(voxels, [hole]))) != first
    holes = Failure(plan.source.frame.box, 100, MissingDataError)
    with pytest.raises(PlanError, match="no block of"):
        speed_of(plan, FlakySource(voxels, [holes]))


def test_what_was_fetched_tells_how_well_the_source_is_compressed(tmp_path: Path) -> None:
    source, plan = prepare(small_run(tmp_path))
    assert 0 < speed_of(plan, source).encoded_share <= 1
    in_memory = ArraySource.of_shape(plan.source.shape)
    assert speed_of(plan, in_memory).encoded_share == 1
