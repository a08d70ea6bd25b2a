"""What every model must hold, whatever its kind: subclass `ModelConformance` and give it a `case`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

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
from vemdiffuse_pipe.models.card import ModelCard, find_card
from vemdiffuse_pipe.models.checkpoint import load_model, new_network, save_checkpoint
from vemdiffuse_pipe.models.protocol import GapView, Model
from vemdiffuse_pipe.models.sizes.protocol import Sizes
from vemdiffuse_pipe.models.tiling import tile_deviation
from vemdiffuse_pipe.plan.plan import Plan, make_plan
from vemdiffuse_pipe.render.block import Hardware, render_block
from vemdiffuse_pipe.volume import VolumeSpec, Voxels

CONTRAST = (128.0, 50.0)
SHAPE = (3, 37, 51)
SECTIONS = np.random.default_rng(5).integers(0, 256, SHAPE, dtype=np.uint8)


@dataclass(frozen=True)
class Case:
    """A small model of a kind. `ratio`: one that it serves. `sampler`, `steps`: how it is driven."""

    kind: str
    sizes: Sizes | None = None
    ratio: int = 3
    side: int = 64
    sampler: str = ""
    steps: int = 2

    @cached_property
    def name(self) -> str:
        """What `load_model` is given: a built-in name, or a checkpoint with weights that all matter."""
        if self.sizes is None:
            return self.kind
        torch.manual_seed(1)
        network = new_network(self.kind, self.sizes)
        with torch.no_grad():
            for p in network.parameters():
                p.add_(0.1 * torch.randn_like(p))
        path = Path(mkdtemp()) / f"{self.kind}.safetensors"
        top = self.sizes.ratio or 12
        card = ModelCard(path.stem, self.kind, "", False, False, 0, 0, 1, self.sizes.ratio or 2, top, steps=2)
        save_checkpoint(path, network, card)  # type: ignore[arg-type]
        return str(path)

    @property
    def card(self) -> ModelCard:
        return find_card(self.name)

    def model(self, steps: int | None = None) -> Model:
        return load_model(
            self.name, steps=steps or self.steps, contrast=CONTRAST, precision="float32", sampler=self.sampler
        )

    def gap(self, n_tiles: int = 1, ratio: int | None = None, width: int | None = None) -> GapView:
        r = ratio or self.ratio
        n_sections = 2 + 2 * self.card.reach_sections
        generator = torch.Generator().manual_seed(3)
        shape = (n_tiles, n_sections, self.side, width or self.side)
        sections = torch.randint(0, 256, shape, generator=generator).float()
        return GapView(sections, torch.arange(1, r, dtype=torch.float64) / r, r)

    def noise_of(self, gap: GapView) -> Any:
        """Deviates of the gap's voxels, others at every step; none to be had where none may be asked for."""
        b, _, y, x = gap.sections.shape

        def noise(step: int) -> Tensor:
            assert self.card.is_stochastic, "a one-pass model asks for noise"
            return torch.randn(b, len(gap.positions), y, x, generator=torch.Generator().manual_seed(step))

        return noise

    def generate(self, gap: GapView, steps: int | None = None) -> Tensor:
        return self.model(steps).generate(gap, self.noise_of(gap))

    def plan(self, **model: object) -> Plan:
        overlap = {"overlap_px": 16} if self.card.context_px else {}
        tiles = {"tile_px": self.side} if self.card.context_px else {}
        table = {"name": self.name, "ratio": self.ratio, "steps": self.steps, **overlap, **tiles, **model}
        if self.sampler:
            table["sampler"] = self.sampler
        run_file = parse(
            {
                "source": {"url": "-", "contrast": list(CONTRAST)},
                "output": {"url": "-", "chunk_shape": [1, 1, 1], "shard_shape": [1, 1, 1]},
                "model": table,
            }
        )
        frame = Frame(SHAPE, exact_nm([10 * self.ratio, 10, 10]))
        spec = VolumeSpec("-", "array", frame, "uint8", (1, 64, 64), (1, 64, 64))
        return make_plan(run_file, spec, self.card)

    def render(self, plan: Plan, box: Box, hardware: Hardware = Hardware()) -> dict[str, Voxels]:  # noqa: B008
        return render_block(plan, self.model(), SECTIONS[plan.source_box(box).slices], box, hardware)


class ModelConformance:
    """The claims. A subclass gives the fixture `case`."""

    @pytest.fixture(autouse=True)
    def _one_thread(self) -> Iterator[None]:
        """As tiles are rendered: with more, layers may round otherwise from one call to the next."""
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(n_threads)

    def test_its_card_is_that_of_its_file_and_says_what_its_kind_says(self, case: Case) -> None:
        card = case.card
        assert case.model().card == card
        assert card.is_stochastic == bool(card.samplers)
        if case.sizes is not None:
            assert card.network_sizes == case.sizes

    def test_every_tile_gets_its_planes_as_finite_float32(self, case: Case) -> None:
        planes = case.generate(case.gap(2))
        assert planes.shape == (2, case.ratio - 1, case.side, case.side)
        assert planes.dtype == torch.float32
        assert planes.isfinite().all()
        assert planes.std() > 1

    def test_a_tile_is_a_function_of_its_own_inputs(self, case: Case) -> None:
        """Bit for bit, whatever else is in the batch."""
        gap = case.gap(3)
        noise, together = case.noise_of(gap), case.generate(gap)
        for i in range(3):
            alone = GapView(gap.sections[i : i + 1], gap.positions, gap.ratio)
            planes = case.model().generate(alone, lambda step, i=i: noise(step)[i : i + 1])
            assert torch.equal(planes, together[i : i + 1])

    @pytest.mark.parametrize("n_threads", [1, 2])
    def test_threads_that_each_render_a_tile_give_the_same(self, case: Case, n_threads: int) -> None:
        expected = case.generate(case.gap())
        with ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            assert all(torch.equal(expected, p) for p in pool.map(case.generate, [case.gap()] * n_threads))

    def test_nothing_beyond_its_context_changes_a_pixel_in_one_evaluation(self, case: Case) -> None:
        gap, card, at = case.gap(), case.card, case.side // 2
        sections = gap.sections.clone()
        sections[..., at, at] = 255 - sections[..., at, at]
        before, after = (case.generate(replace(gap, sections=s), 1) for s in (gap.sections, sections))
        changed = (before != after).any(dim=1)[0].nonzero() - at
        reach = int(changed.abs().max())
        assert reach <= card.context_px
        if card.is_tile_exact:
            assert 2 * card.context_px < case.side, "the case is too small to tell"
            assert reach >= card.context_px / 3
        else:
            assert reach > case.side / 3
            assert card.context_px == card.tile_px == case.side

    def test_tiles_agree_beyond_their_context_or_differ_by_a_measured_amount(self, case: Case) -> None:
        card, side = case.card, case.side
        step = card.multiple_px * max(1, side // 4 // card.multiple_px)
        gap = case.gap(width=side + step)
        deviation = tile_deviation(case.model(1), gap, case.noise_of(gap), side)
        assert np.isfinite(deviation)
        if card.context_px == 0:
            assert deviation == 0
        elif card.is_tile_exact:
            left, right = (
                case.model(1).generate(
                    replace(gap, sections=gap.sections[..., a : a + side]),
                    lambda s, a=a: case.noise_of(gap)(s)[..., a : a + side],
                )
                for a in (0, step)
            )
            inner = slice(step + card.context_px, side - card.context_px)
            assert inner.stop > inner.start, "the case is too small to tell"
            there = slice(inner.start - step, inner.stop - step)
            assert float((left[..., inner] - right[..., there]).abs().max()) < 0.01
        else:
            assert deviation > 0

    def test_its_operations_are_those_that_torch_counts(self, case: Case) -> None:
        gap, model = case.gap(), case.model()
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model.generate(gap, case.noise_of(gap))
        flop = case.steps * case.card.flop_per_pixel(case.ratio - 1) if case.sizes else 0
        if case.sizes is not None:
            assert flop == pytest.approx(counter.get_total_flops() / case.side**2, rel=0.08)
        else:
            assert case.card.flop_per_pixel(1) > 0

    def test_it_serves_every_ratio_that_its_card_names_and_no_other(self, case: Case) -> None:
        card = case.card
        if card.min_ratio < card.max_ratio:
            for ratio in (2, 7):
                assert case.generate(case.gap(ratio=ratio)).shape[1] == ratio - 1
        else:
            with pytest.raises(PlanError, match=f"ratio {card.min_ratio} to {card.max_ratio}"):
                case.plan(ratio=card.max_ratio + 1)

    def test_block_and_batch_do_not_change_a_voxel_of_what_it_renders(self, case: Case) -> None:
        plan = case.plan()
        whole = case.render(plan, plan.output.box, Hardware(n_threads=2, tile_batch=3))
        assert np.array_equal(whole["em"][:: case.ratio], SECTIONS)
        box = Box((2, 11, 20), (5, 37, 51))
        for name, voxels in case.render(plan, box).items():
            assert np.array_equal(voxels, whole[name][box.slices]), name

    def test_only_samples_have_a_spread(self, case: Case) -> None:
        if case.card.is_stochastic:
            plan = case.plan(samples=3)
            out = case.render(plan, plan.output.box)
            assert not out["uncertainty"][:: case.ratio].any()
            assert out["uncertainty"][1 :: case.ratio].mean() > 0.5
        else:
            assert case.plan().arrays == (("em", "uncertainty") if case.card.has_estimate else ("em",))
            for table in ({"samples": 2}, {"sampler": "heun"}):
                with pytest.raises(PlanError, match="draws no samples"):
                    case.plan(**table)

    def test_an_estimate_comes_with_its_spread_and_asks_for_no_draw(self, case: Case) -> None:
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

    def test_sections_are_estimated_where_that_is_asked_for(self, case: Case) -> None:
        """All planes but those of `sample`, whatever the blocks."""
        if not case.card.has_estimate:
            with pytest.raises(PlanError, match="makes no estimate of planes at sections"):
                case.plan(sections="estimate")
            return
        draws = {"samples": 1} if case.card.is_stochastic else {}
        plan = case.plan(sections="estimate", **draws)
        whole = case.render(plan, plan.output.box)
        assert (whole["em"][:: case.ratio] != SECTIONS).mean() > 0.5
        assert whole["uncertainty"][:: case.ratio].any()
        assert set(plan.provenance()[:: case.ratio]) == {8}
        if draws:
            assert np.array_equal(whole["sample"][:: case.ratio], SECTIONS)
        for box in (Box((0, 0, 0), (1, 37, 51)), Box((2, 11, 20), (5, 37, 51)), Box((6, 0, 0), (7, 37, 51))):
            for name, voxels in case.render(plan, box).items():
                assert np.array_equal(voxels, whole[name][box.slices]), name
