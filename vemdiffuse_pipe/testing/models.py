"""What every model that fills gaps keeps: subclass `ModelConformance`, and provide a `ModelCase`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vemdiffuse_pipe.config import parse
from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import Frame, exact_nm
from vemdiffuse_pipe.geometry.plane_groups import Provenance
from vemdiffuse_pipe.models.card import ModelCard
from vemdiffuse_pipe.models.protocol import GapView, Model
from vemdiffuse_pipe.models.samplers import Noise
from vemdiffuse_pipe.models.tiling import tile_deviation
from vemdiffuse_pipe.plan.plan import Plan, make_plan
from vemdiffuse_pipe.plan.planes import MAX_RATIO
from vemdiffuse_pipe.render.block import Hardware, render_block
from vemdiffuse_pipe.volume import VolumeSpec, Voxels

CONTRAST = (128.0, 50.0)
SHAPE = (3, 37, 51)
SECTIONS = np.random.default_rng(5).integers(0, 256, SHAPE, dtype=np.uint8)


@dataclass(frozen=True)
class ModelCase:
    """A small model, and how it is put to the test; its weights should be random, so that all matter."""

    make: Callable[[int], Model]
    """The model on the CPU in float32, driven with so many evaluations, for the contrast `CONTRAST`."""
    ratio: int = 3
    """One that it serves."""
    side: int = 64
    """Pixels of a tile: more than twice its context where it is exact under tiling."""
    sampler: str = ""
    """What drives it; empty: what its card names."""
    steps: int = 2
    """Evaluations for a sample."""

    @cached_property
    def card(self) -> ModelCard:
        """The card of the model."""
        return self.make(self.steps).card

    def gap(self, n_tiles: int = 1, ratio: int | None = None, width: int | None = None) -> GapView:
        """Tiles of a gap whose sections are noise, `side` px high and as wide unless stated."""
        r = ratio or self.ratio
        generator = torch.Generator().manual_seed(3)
        shape = (n_tiles, 2 + 2 * self.card.reach_sections, self.side, width or self.side)
        sections = torch.randint(0, 256, shape, generator=generator).float()
        return GapView(sections, torch.arange(1, r, dtype=torch.float64) / r, r)

    def noise_of(self, gap: GapView) -> Noise:
        """Deviates of the gap's voxels, others at every step; none to be had where none may be asked for."""
        b, _, y, x = gap.sections.shape

        def noise(step: int) -> Tensor:
            assert self.card.is_stochastic, "a one-pass model asks for noise"
            return torch.randn(b, len(gap.positions), y, x, generator=torch.Generator().manual_seed(step))

        return noise

    def generate(self, gap: GapView, steps: int | None = None) -> Tensor:
        """The planes of a gap, with the noise of `noise_of`."""
        return self.make(steps or self.steps).generate(gap, self.noise_of(gap))

    def plan(self, **model: object) -> Plan:
        """The plan of a run of it over `SECTIONS`; `model`: keys of [model]. Raises PlanError."""
        tiles = {"tile_px": self.side, "overlap_px": 16} if self.card.context_px else {}
        driven = {"sampler": self.sampler} if self.sampler else {}
        run_file = parse(
            {
                "source": {"url": "-", "contrast": list(CONTRAST)},
                "output": {"url": "-", "chunk_shape": [1, 1, 1], "shard_shape": [1, 1, 1]},
                "model": {
                    "name": self.card.name,
                    "ratio": self.ratio,
                    "steps": self.steps,
                    **tiles,
                    **driven,
                    **model,
                },
            }
        )
        frame = Frame(SHAPE, exact_nm([10 * self.ratio, 10, 10]))
        spec = VolumeSpec("-", "array", frame, "uint8", (1, 64, 64), (1, 64, 64))
        return make_plan(run_file, spec, self.card)

    def render(self, plan: Plan, box: Box, hardware: Hardware = Hardware()) -> dict[str, Voxels]:  # noqa: B008
        """The arrays of a block of that run, by name."""
        return render_block(plan, self.make(self.steps), SECTIONS[plan.source_box(box).slices], box, hardware)


class ModelConformance:
    """The claims, as tests. A subclass provides the fixture `case`; kind and sizes are in the model's card.

    >>> class TestMyModel(ModelConformance):
    ...     @pytest.fixture
    ...     def case(self) -> ModelCase:
    ...         return ModelCase(lambda steps: MyModel(steps), ratio=5, side=64)
    """

    @pytest.fixture(autouse=True)
    def _one_thread(self) -> Iterator[None]:
        """As tiles are rendered: with more, layers may round otherwise from one call to the next."""
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(n_threads)

    def test_every_tile_gets_its_planes_as_finite_float32(self, case: ModelCase) -> None:
        """(b, n, y, x), and no two pixels the same by accident."""
        planes = case.generate(case.gap(2))
        assert planes.shape == (2, case.ratio - 1, case.side, case.side)
        assert planes.dtype == torch.float32
        assert planes.isfinite().all()
        assert planes.std() > 1

    def test_a_tile_is_a_function_of_its_own_inputs(self, case: ModelCase) -> None:
        """Bit for bit, whatever else is in the batch."""
        gap = case.gap(3)
        noise, together = case.noise_of(gap), case.generate(gap)
        for i in range(3):
            alone = GapView(gap.sections[i : i + 1], gap.positions, gap.ratio)
            planes = case.make(case.steps).generate(alone, lambda step, i=i: noise(step)[i : i + 1])  # type: ignore[misc]
            assert torch.equal(planes, together[i : i + 1])

    def test_threads_that_each_render_a_tile_give_the_same(self, case: ModelCase) -> None:
        """As a block is rendered: one model for all threads."""
        model, gap = case.make(case.steps), case.gap()
        expected = model.generate(gap, case.noise_of(gap))
        with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            planes = pool.map(lambda _: model.generate(gap, case.noise_of(gap)), range(4))
            assert all(torch.equal(expected, p) for p in planes)

    def test_nothing_beyond_its_context_changes_a_pixel_in_one_evaluation(self, case: ModelCase) -> None:
        """Of a network that is exact under tiling; another one looks at its whole tile, and says so."""
        gap, card, centre = case.gap(), case.card, case.side // 2
        sections = gap.sections.clone()
        sections[..., centre, centre] = 255 - sections[..., centre, centre]
        before, after = (case.generate(replace(gap, sections=s), 1) for s in (gap.sections, sections))
        changed = (before != after).any(dim=1)[0].nonzero() - centre
        reach = int(changed.abs().max())
        assert reach <= card.context_px
        if card.is_tile_exact:
            assert 2 * card.context_px < case.side, "the case is too small to tell"
            assert reach >= card.context_px / 3
        else:
            assert reach > case.side / 3
            assert card.context_px == card.tile_px == case.side

    def test_tiles_agree_beyond_their_context_or_differ_measurably(self, case: ModelCase) -> None:
        """Two tiles that overlap, each given the noise of its voxels."""
        card, side = case.card, case.side
        step = card.multiple_px * max(1, side // 4 // card.multiple_px)
        gap, model = case.gap(width=side + step), case.make(1)
        noise = case.noise_of(gap)
        if not card.is_tile_exact:
            assert 0 < tile_deviation(model, gap, noise, side) < 255
            return
        left, right = (
            model.generate(
                replace(gap, sections=gap.sections[..., a : a + side]),
                lambda s, a=a: noise(s)[..., a : a + side],  # type: ignore[misc]
            )
            for a in (0, step)
        )
        inner = slice(step + card.context_px, side - card.context_px)
        assert inner.stop > inner.start, "the case is too small to tell"
        same = slice(inner.start - step, inner.stop - step)
        tolerance = 0.01 if card.context_px else 0.0
        assert float((left[..., inner] - right[..., same]).abs().max()) <= tolerance

    def test_its_operations_are_those_that_torch_counts(self, case: ModelCase) -> None:
        """To 8 %: what torch counts are convolutions and products of matrices."""
        gap, model = case.gap(), case.make(case.steps)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model.generate(gap, case.noise_of(gap))
        counted = counter.get_total_flops() / case.side**2
        if not counted:
            pytest.skip("torch counts none of its operations")
        assert case.steps * case.card.flop_per_pixel(case.ratio - 1) == pytest.approx(counted, rel=0.08)

    def test_it_serves_every_ratio_that_its_card_names_and_no_other(self, case: ModelCase) -> None:
        """Another ratio is refused when the run is planned."""
        card = case.card
        for ratio in {card.min_ratio, min(card.max_ratio, 7)}:
            assert case.generate(case.gap(ratio=ratio)).shape[1] == ratio - 1
        if card.max_ratio < MAX_RATIO:
            with pytest.raises(PlanError, match=f"ratio {card.min_ratio} to {card.max_ratio}"):
                case.plan(ratio=card.max_ratio + 1)

    def test_block_and_batch_do_not_change_a_voxel_of_what_it_renders(self, case: ModelCase) -> None:
        """Sections pass through; planes are the same from any block, any batch, any number of threads."""
        plan = case.plan()
        whole = case.render(plan, plan.output.box, Hardware(n_threads=2, tile_batch=3))
        assert np.array_equal(whole["em"][:: case.ratio], SECTIONS)
        box = Box((2, 11, 20), (5, 37, 51))
        for name, voxels in case.render(plan, box).items():
            assert np.array_equal(voxels, whole[name][box.slices]), name

    def test_only_samples_have_a_spread(self, case: ModelCase) -> None:
        """A model that draws none has no uncertainty, and refuses to be asked for it."""
        if case.card.is_stochastic:
            plan = case.plan(samples=3)
            out = case.render(plan, plan.output.box)
            assert not out["uncertainty"][:: case.ratio].any()
            assert out["uncertainty"][1 :: case.ratio].mean() > 0.5
            return
        assert case.plan().arrays == (("em", "uncertainty") if case.card.has_estimate else ("em",))
        for table in ({"samples": 2}, {"sampler": "heun"}):
            with pytest.raises(PlanError, match="draws no samples"):
                case.plan(**table)

    def test_an_estimate_comes_with_its_spread_and_asks_for_no_draw(self, case: ModelCase) -> None:
        """Whatever else is drawn, and from whatever seed."""
        if not case.card.has_estimate:
            return
        plan = case.plan()
        assert (plan.arrays, plan.sampling.samples) == (("em", "uncertainty"), 0)
        out = case.render(plan, plan.output.box)
        assert not out["uncertainty"][:: case.ratio].any()
        assert out["uncertainty"][1 :: case.ratio].mean() > 0.5
        if case.card.is_stochastic:
            drawn = case.render(case.plan(samples=2, seed=5), plan.output.box)
            assert list(drawn) == ["em", "uncertainty", "sample", "sample_spread"]
            assert all(np.array_equal(drawn[name], out[name]) for name in out)
            assert not np.array_equal(drawn["sample"], drawn["em"])
            assert np.array_equal(drawn["sample"][:: case.ratio], SECTIONS)

    def test_sections_are_estimated_where_that_is_asked_for(self, case: ModelCase) -> None:
        """In all arrays but `sample`, whatever the blocks."""
        if not case.card.has_estimate:
            with pytest.raises(PlanError, match="makes no estimate of planes at sections"):
                case.plan(sections="estimate")
            return
        draws = {"samples": 1} if case.card.is_stochastic else {}
        plan = case.plan(sections="estimate", **draws)
        whole = case.render(plan, plan.output.box)
        assert (whole["em"][:: case.ratio] != SECTIONS).mean() > 0.5
        assert whole["uncertainty"][:: case.ratio].any()
        assert set(plan.provenance()[:: case.ratio]) == {Provenance.RESTORED}
        if draws:
            assert np.array_equal(whole["sample"][:: case.ratio], SECTIONS)
        for box in (Box((0, 0, 0), (1, 37, 51)), Box((2, 11, 20), (5, 37, 51)), Box((6, 0, 0), (7, 37, 51))):
            for name, voxels in case.render(plan, box).items():
                assert np.array_equal(voxels, whole[name][box.slices]), name
