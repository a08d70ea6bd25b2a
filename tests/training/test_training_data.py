"""What is cut out of volumes: everywhere evenly, nothing that is held back, the same whenever it is asked."""

from __future__ import annotations

import time
from contextlib import closing

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from small_training import PLAIN, batches, noise, volume

from vemdiffuse_pipe.errors import DataError, MissingDataError, PlanError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.testing import ArraySource, Failure, FlakySource, SlowSource
from vemdiffuse_pipe.training.crops import has_contrast
from vemdiffuse_pipe.training.gaps import GapBatch, RoundRobin, Variation
from vemdiffuse_pipe.training.objectives.residual import linear_between
from vemdiffuse_pipe.training.pool import SlabPool
from vemdiffuse_pipe.training.region import first_voxels
from vemdiffuse_pipe.training.slabs import CropSpec, SlabSchedule

shapes = st.tuples(*[st.integers(1, 9)] * 3)
spans = st.tuples(st.integers(-3, 11), st.integers(-3, 11)).map(sorted)
boxes = st.tuples(spans, spans, spans).map(lambda spans: Box(*zip(*spans, strict=True)))  # type: ignore[arg-type]


def _all(box: Box) -> set[tuple[int, int, int]]:
    z, y, x = (range(a, b) for a, b in zip(box.start, box.stop, strict=True))
    return {(k, j, i) for k in z for j in y for i in x}


@given(shapes, st.tuples(*[st.integers(1, 4)] * 3), st.lists(boxes, max_size=3))
@settings(max_examples=60, deadline=None)
def test_first_voxels_are_those_of_all_crops_that_touch_no_hole(shape, extent, holes) -> None:
    region = Box.of_shape(shape, (1, 2, 0))
    found = first_voxels(region, extent, holes)
    wanted = {
        first
        for first in _all(region)
        if region.contains(crop := Box.of_shape(extent, first))
        and all(crop.intersect(hole).is_empty for hole in holes)
    }
    assert sum(box.n_voxels for box in found) == len(wanted)
    assert set().union(*map(_all, found)) == wanted


@given(boxes, st.integers(0, 2), st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_no_slab_holds_a_voxel_that_is_held_back(hole: Box, axis: int, number: int) -> None:
    source = ArraySource.of_shape((11, 13, 12))
    cut = CropSpec(axis, 3, 2, 4)
    if not first_voxels(source.spec.frame.box, cut.extent, (hole,)):
        with pytest.raises(PlanError, match="no room"):
            SlabSchedule([volume(source, holes=(hole,))], cut, slab_bytes=300)
        return
    slab = SlabSchedule([volume(source, holes=(hole,))], cut, slab_bytes=300).slab(number)
    assert slab.box.intersect(hole).is_empty
    assert source.spec.frame.box.contains(slab.box)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_each_first_voxel_is_as_likely_as_any_other(axis: int) -> None:
    """Chi-square over the places along one axis at a time, in a volume whose voxels hold that place."""
    shape = (19, 23, 17)
    for along in range(3):
        places = np.indices(shape)[along].astype(np.uint8)
        cut = CropSpec(axis, 4, 5, 6)
        made = batches(
            volume(ArraySource(places)),
            cut=cut,
            batch_size=50,
            slab_bytes=500,
            wanted_samples_per_slab=1,
            pool=1,
            seed=along,
        )
        with closing(made):
            crops = [made.batch(step) for step in range(20)]
        lowest = np.concatenate(
            [torch.cat([c.sections, c.targets], 1).amin((1, 2, 3)).numpy().astype(int) for c in crops]
        )
        n_places = shape[along] - cut.extent[along] + 1
        counts = np.bincount(lowest, minlength=n_places)
        assert len(counts) == n_places
        assert stats.chisquare(counts).pvalue > 1e-4


def test_targets_lie_between_their_sections_in_order() -> None:
    slope = np.broadcast_to(np.arange(24, dtype=np.uint8)[:, None, None] * 10, (24, 40, 40)).copy()
    with closing(batches(volume(ArraySource(slope)))) as made:
        batch = made.batch(0)
    assert batch.sections.shape == (4, 2, 16, 16)
    assert batch.targets.shape == (4, 2, 16, 16)
    assert torch.allclose(batch.targets, linear_between(batch.sections, 3), atol=1e-4)


@pytest.mark.parametrize(("axis", "rows_hold"), [(1, 0), (2, 1)])
def test_z_takes_the_place_of_the_axis_of_the_gap(axis: int, rows_hold: int) -> None:
    z = np.broadcast_to(np.arange(24, dtype=np.uint8)[:, None, None], (24, 40, 40)).copy()
    with closing(batches(volume(ArraySource(z)), cut=CropSpec(axis, 4, 16, 16))) as made:
        sections = made.batch(0).sections
    assert (sections.diff(dim=2 + rows_hold).abs() == 1).all()
    assert (sections.diff(dim=3 - rows_hold) == 0).all()


def test_resampled_rows_are_evenly_spaced_and_begin_anywhere_between_two_sections() -> None:
    z = np.broadcast_to(np.arange(24, dtype=np.uint8)[:, None, None] * 8, (24, 40, 40)).copy()
    with closing(
        batches(volume(ArraySource(z)), cut=CropSpec(1, 4, 16, 16, upsampling=4), batch_size=32)
    ) as made:
        sections = made.batch(0).sections
    assert torch.allclose(sections.diff(dim=2).abs(), torch.tensor(2.0))
    assert len(set((sections[:, 0].amin((1, 2)) % 8).tolist())) == 4


def test_axes_take_turns() -> None:
    source = noise((24, 40, 40))
    both = RoundRobin([batches(volume(source), cut=CropSpec(axis, 4, 16, 24)) for axis in (1, 2)])
    with closing(both):
        assert both.batch(0).sections.shape == (4, 2, 16, 24)
        assert both.batch(1).sections.shape == (4, 2, 24, 16)
        assert both.n_bytes[1] == 2 * 4 * 4 * 16 * 24


def _same(a: GapBatch, b: GapBatch) -> bool:
    return torch.equal(a.sections, b.sections) and torch.equal(a.targets, b.targets)


def test_a_batch_is_a_function_of_seed_and_step_whatever_was_read_before() -> None:
    source = noise((40, 60, 60))
    options = {"slab_bytes": 9000, "wanted_samples_per_slab": 3, "pool": 3}
    augment = Variation(blur=0.5, quarter_turns=0.5)
    with closing(batches(volume(source), variation=augment, seed=1, **options)) as one:
        unbroken = [one.batch(step) for step in range(9)]
    slow = SlowSource(source, 0.003)
    with closing(batches(volume(slow), variation=augment, seed=1, **options)) as resumed:
        assert _same(resumed.batch(7), unbroken[7])
        assert _same(resumed.batch(2), unbroken[2])
    with closing(batches(volume(source), variation=augment, seed=2, **options)) as other:
        assert not _same(other.batch(7), unbroken[7])
    assert not _same(unbroken[7], unbroken[8])


def test_shares_of_a_batch_are_parts_of_it() -> None:
    with closing(batches(volume(noise((24, 40, 40))))) as made:
        whole = made.batch(5)
        assert torch.equal(made.batch(5, slice(2, 4)).targets, whole.targets[2:])


def test_a_slab_is_used_for_several_samples_so_that_little_is_read() -> None:
    source = noise((64, 200, 200))
    with closing(
        batches(volume(source), cut=CropSpec(0, 6, 32, 32), batch_size=16, slab_bytes=1 << 20)
    ) as made:
        counts = []
        for step in range(60):
            made.batch(step)
            counts.append(made.n_bytes)
        assert made.pool.schedule.samples_per_slab > 10
    decoded, used = (last - first for first, last in zip(counts[20], counts[-1], strict=True))
    assert decoded / used < 3


def test_the_pool_holds_no_more_than_its_window() -> None:
    schedule = SlabSchedule([volume(noise((24, 40, 40)))], CropSpec(0, 4, 16, 16), pool=3)
    with SlabPool(schedule) as pool:
        for first in (0, 1, 2, 17):
            pool.move_to(range(first, first + 3))
            assert pool.get(first + 1).voxels.shape == schedule.slab(first + 1).box.shape
            assert len(pool._slabs) == 5


def test_black_and_flat_crops_are_replaced() -> None:
    voxels = np.random.default_rng(0).integers(1, 255, (24, 40, 80), dtype=np.uint8)
    voxels[:, :, 24:] = 0
    lively = Variation(quarter_turns=0.0, gain=0.0, least_contrast=1.0)
    with closing(batches(volume(ArraySource(voxels)), variation=lively, batch_size=64)) as made:
        sections = made.batch(0).sections
        assert made.n_rejected > 20
    assert ((sections == 0).float().mean((2, 3)) <= 0.5).all()
    assert not has_contrast(np.full((2, 8, 8), 90, np.uint8), 1.0)


def test_a_volume_without_tissue_is_said_to_have_none() -> None:
    flat = ArraySource(np.full((24, 40, 40), 90, np.uint8))
    lively = Variation(least_contrast=0.1)
    with (
        closing(batches(volume(flat), variation=lively)) as made,
        pytest.raises(DataError, match="black or flat"),
    ):
        made.batch(0)


def test_a_slab_with_a_hole_is_replaced_and_the_same_one_every_time() -> None:
    source = noise((40, 60, 60))

    def flaky() -> FlakySource:
        return FlakySource(source, [Failure(Box((0, 0, 0), (12, 60, 60)), 10**6, MissingDataError)])

    options = {"slab_bytes": 9000, "wanted_samples_per_slab": 3}
    with (
        closing(batches(volume(flaky()), **options)) as one,
        closing(batches(volume(flaky()), **options)) as two,
    ):
        assert all(_same(one.batch(step), two.batch(step)) for step in range(4))


def test_what_cannot_be_read_anywhere_is_raised() -> None:
    lost = FlakySource(noise((24, 40, 40)), [Failure(Box.of_shape((24, 40, 40)), 10**6, MissingDataError)])
    with closing(batches(volume(lost))) as made, pytest.raises(MissingDataError):
        made.batch(0)


def test_a_region_that_is_too_small_is_refused_with_the_size_that_would_do() -> None:
    with pytest.raises(PlanError, match="4 x 16 x 16 is the smallest that would do"):
        batches(volume(noise((3, 40, 40))))
    held = (Box((4, 0, 0), (20, 40, 40)),)
    with pytest.raises(PlanError, match="held back or rejected"):
        batches(volume(noise((23, 40, 40)), holes=held), cut=CropSpec(0, 5, 16, 16))


def test_blur_touches_sections_and_never_targets() -> None:
    blurred = Variation(quarter_turns=0.0, gain=0.0, least_contrast=0.0, blur=1.0)
    source = noise((24, 40, 40))
    with closing(batches(volume(source))) as a, closing(batches(volume(source), variation=blurred)) as b:
        sharp, soft = a.batch(0), b.batch(0)
    assert torch.equal(sharp.targets, soft.targets)
    assert (soft.sections.std((2, 3)) < 0.5 * sharp.sections.std((2, 3))).all()
    assert PLAIN.blur == 0


def test_reading_goes_on_while_a_batch_is_used() -> None:
    """A reader that is slower than one batch, but not than the samples of a slab, is never waited for."""
    slow = SlowSource(noise((40, 60, 60)), 0.02)
    with closing(batches(volume(slow), slab_bytes=9000, wanted_samples_per_slab=16)) as made:
        made.batch(0)
        deadline = time.monotonic() + 20
        while not all(future.done() for future in made.pool._slabs.values()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert len(made.pool._slabs) == made.pool.schedule.pool + 2


def test_no_two_cuts_of_a_volume_share_random_numbers() -> None:
    cuts = [CropSpec(axis, 4, 8, 8, upsampling) for axis in range(3) for upsampling in range(1, 9)]
    assert len({cut.number for cut in cuts}) == len(cuts)
