"""A model is adapted to a volume by the volume's own sections, and judged where it has not looked."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import tifffile
import torch

from vemdiffuse_pipe.cli.entry import run_command
from vemdiffuse_pipe.errors import ConfigError, OutputError, PlanError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.holdout.run import selftest
from vemdiffuse_pipe.models.card import ModelCard, find_card
from vemdiffuse_pipe.models.checkpoint import save_checkpoint
from vemdiffuse_pipe.models.gap_models import BothNetworks
from vemdiffuse_pipe.models.sizes.gap import SamplerSizes
from vemdiffuse_pipe.phantom import phantom
from vemdiffuse_pipe.testing import ArraySource
from vemdiffuse_pipe.training.adapt.gaps import LATERAL, SECTIONS, Mixed, ToldGaps
from vemdiffuse_pipe.training.adapt.run import Adapted, adapt, held_back, own_batches
from vemdiffuse_pipe.volume import OnHole, Voxels, ignore_hole

THICK = (Fraction(30), Fraction(10), Fraction(10))  # r = 3
SHAPE = (9, 72, 104)
SMALL = SamplerSizes(channels=(8, 8, 8), n_blocks=1, n_basis=4, n_embedding=16)
OWN = (SECTIONS, LATERAL)


class Watched(ArraySource):
    """A volume in memory that keeps the boxes that were read."""

    def __init__(self, voxels: Voxels) -> None:
        super().__init__(voxels, THICK)
        self.boxes: list[Box] = []

    def read(self, box: Box, on_hole: OnHole = ignore_hole) -> Voxels:
        self.boxes.append(box)
        return super().read(box, on_hole)


@pytest.fixture(scope="module")
def tissue() -> Voxels:
    return phantom((27, *SHAPE[1:]), 3)[::3]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small model of the default's kind, untrained: what it adds to interpolation is noise."""
    torch.manual_seed(0)
    network = BothNetworks(SMALL)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    card = ModelCard(
        "small", "estimator-sampler", "", False, False, 0, 0, 1, 2, 12, steps=2, residual_scale=0.4
    )
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_checkpoint(path, network, card)
    return str(path)


def adapted(tissue: Voxels, small: str, output: Path, steps: int, **options: object) -> Adapted:
    return adapt(
        Watched(tissue), output, model=small, pattern=OWN, max_steps=steps, **{"lr": 5e-3, **options}
    )  # type: ignore[arg-type]


def test_it_gets_better_on_what_was_held_back_and_goes_on_where_it_was(
    tissue: Voxels, small: str, tmp_path: Path
) -> None:
    first = adapted(tissue, small, tmp_path / "mine.safetensors", 12)
    assert first.after > first.before
    assert first.checkpoint is not None
    card = find_card(str(first.checkpoint))
    assert Box.between(card.held_back) == held_back(Watched(tissue))
    assert "12 steps" in card.training
    again = adapted(tissue, small, tmp_path / "mine.safetensors", 12)
    assert again.outcome.step == 12
    assert again.after == first.after
    with pytest.raises(OutputError, match="seed 0 -> 1"):
        adapted(tissue, small, tmp_path / "mine.safetensors", 12, seed=1)


def test_nothing_is_written_where_nothing_is_better(tissue: Voxels, small: str, tmp_path: Path) -> None:
    never = adapted(tissue, small, tmp_path / "mine.safetensors", 1, lr=1e-12)
    assert never.checkpoint is None
    assert never.after == never.before


def test_nothing_is_learnt_from_what_is_held_back(tissue: Voxels, small: str) -> None:
    source = Watched(tissue)
    held, card = held_back(source), find_card(small)
    batches = own_batches(source, card, (128.0, 30.0), held, 0, OWN)
    try:
        for step in range(8):
            batches.batch(step)
    finally:
        batches.close()
    assert source.boxes
    assert all(box.intersect(held).is_empty for box in source.boxes)


def test_gaps_are_told_how_they_were_cut_and_learnt_in_the_middle(tissue: Voxels, small: str) -> None:
    source = Watched(tissue)
    batches = own_batches(source, find_card(small), (128.0, 30.0), held_back(source), 0, OWN)
    try:
        sections, lateral = batches.batch(0), batches.batch(1)
    finally:
        batches.close()
    assert isinstance(sections, ToldGaps)
    assert isinstance(lateral, ToldGaps)
    assert (sections.targets.shape[1], sections.ratio, sections.positions.tolist()) == (1, 6, [0.5])
    assert (lateral.targets.shape[1], lateral.ratio) == (2, 3)
    assert sections.sections.shape[1] == lateral.sections.shape[1] == 4
    assert not torch.equal(sections.conditions[0], lateral.conditions[0])


def test_kinds_take_their_turns_and_each_goes_through_its_own_batches() -> None:
    class Counted:
        n_bytes, n_rejected = (0, 0), 0

        def __init__(self, name: str) -> None:
            self.name = name

        def batch(self, step: int, share: slice = slice(None)) -> tuple[str, int]:
            return self.name, step

        def close(self) -> None: ...

    mixed = Mixed({"a": [Counted("a0"), Counted("a1")], "b": [Counted("b")]}, ("a", "b", "a"))  # type: ignore[list-item]
    drawn = [mixed.batch(step) for step in range(6)]
    assert drawn == [("a0", 0), ("b", 0), ("a1", 0), ("a0", 1), ("b", 1), ("a1", 1)]


def test_a_self_test_looks_where_an_adapted_model_has_not(tissue: Voxels, small: str, tmp_path: Path) -> None:
    made = adapted(tissue, small, tmp_path / "mine.safetensors", 6)
    assert made.checkpoint is not None
    found = selftest(Watched(tissue), ("linear", str(made.checkpoint)), n_places=3)
    held = held_back(Watched(tissue))
    assert {x for _, _, x in found.places} == {held.start[2]}
    assert found.window_px == held.shape[1:]


def test_what_cannot_be_adapted_to_is_refused_in_a_sentence(
    tissue: Voxels, small: str, tmp_path: Path
) -> None:
    output = tmp_path / "mine.safetensors"
    with pytest.raises(PlanError, match=r"has 5 sections .* at least 8 of 64 x 96 px are needed"):
        adapt(ArraySource(tissue[:5], THICK), output, model=small)
    with pytest.raises(PlanError, match="isotropic already"):
        adapt(ArraySource(tissue, (Fraction(10),) * 3), output, model=small)
    with pytest.raises(ConfigError, match="is of kind udim"):
        adapt(ArraySource(tissue, THICK), output, model="udim")
    assert not list(tmp_path.iterdir())


def test_reconstruct_adapts_first_and_says_what_is_too_little(
    tissue: Voxels, small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack, output = tmp_path / "em.tif", tmp_path / "out.zarr"
    tifffile.imwrite(stack, tissue, photometric="minisblack")
    asked = ["reconstruct", str(stack), str(output), "--voxel-size", "30", "10", "10", "--model", small]
    assert run_command([*asked, "--adapt", "0.002"]) == 0
    assert (tmp_path / "out.zarr.model.training" / "log.jsonl").exists()
    tifffile.imwrite(stack, tissue[:4], photometric="minisblack")
    asked = ["adapt", str(stack), "--voxel-size", "30", "10", "10", "-o", str(tmp_path / "mine.safetensors")]
    assert run_command(asked) == 2
    assert "at least 8 of 64 x 96 px" in capsys.readouterr().err
