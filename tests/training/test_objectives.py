"""Objectives: what a network is given in training is what it is given in use; losses mean what they say."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from scipy.stats import wasserstein_distance
from small_training import PLAIN, noise, volume
from torch import Tensor, nn

from vemdiffuse_pipe.errors import ConfigError, ModelError
from vemdiffuse_pipe.models.card import ModelCard, with_network
from vemdiffuse_pipe.models.checkpoint import new_network
from vemdiffuse_pipe.models.diffusion import WHOLE_RANGE, UdimDiffusion
from vemdiffuse_pipe.models.onepass import AxialRestoration
from vemdiffuse_pipe.models.protocol import GapView, Settings
from vemdiffuse_pipe.models.samplers import trained_gammas
from vemdiffuse_pipe.models.sizes.a2i3dem import AxialConfig
from vemdiffuse_pipe.models.sizes.lean import LeanConfig
from vemdiffuse_pipe.models.sizes.plain import PssrConfig, RcanConfig
from vemdiffuse_pipe.models.sizes.protocol import Sizes
from vemdiffuse_pipe.models.sizes.sru3d import Sru3dConfig
from vemdiffuse_pipe.models.sizes.udim import UdimConfig
from vemdiffuse_pipe.testing import ArraySource, position_coded
from vemdiffuse_pipe.training.gaps import GapBatch, GapBatches
from vemdiffuse_pipe.training.kinds import freeze
from vemdiffuse_pipe.training.objectives.distribution import Features, distribution_loss, stored_layers
from vemdiffuse_pipe.training.objectives.draws import Draws
from vemdiffuse_pipe.training.objectives.onepass import AxialRepair, PlanesBetween
from vemdiffuse_pipe.training.objectives.plane_noise import PlaneNoise, gammas_at
from vemdiffuse_pipe.training.pool import SlabPool
from vemdiffuse_pipe.training.slabs import CropSpec, SlabSchedule
from vemdiffuse_pipe.training.state import TrainingState
from vemdiffuse_pipe.volume import Source

RATIO = 4


def gaps(
    source: Source, cut: CropSpec, *, reach: int = 0, grey: tuple[float, float] | None = None, n: int = 5
) -> GapBatch:
    schedule = SlabSchedule([volume(source)], cut)
    with closing(GapBatches(SlabPool(schedule), {RATIO: 1.0}, n, PLAIN, reach, grey)) as made:
        return made.batch(0)


class Seeing(nn.Module):
    """Answers with zeros, and keeps what it was given."""

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        self.config = config
        self.given: list[tuple[Tensor, ...]] = []

    def forward(self, *given: Tensor) -> Tensor:
        self.given.append(given)
        return torch.zeros_like(given[0][:, :1])


@pytest.mark.parametrize("kind", ["udim", "cddpm"])
def test_udim_sees_in_training_what_it_sees_in_use(kind: str) -> None:
    n_conditions, ratio = (2, RATIO) if kind == "udim" else (1, 0)
    config = UdimConfig(8, (1, 2), 1, 4, 8, n_conditions, ratio, tile_px=16)
    batch = gaps(noise((24, 40, 40)), CropSpec(0, RATIO + 1, 16, 16), grey=WHOLE_RANGE)
    learning, drawing = Seeing(config), Seeing(config)
    PlaneNoise(n_conditions, autocast=False)(learning, batch, Draws.of(3, 1, 5))
    ((inputs, gamma, layers),) = learning.given

    card = with_network(ModelCard(kind, kind, "", True, False, 0, 0, 1, RATIO, RATIO), config)
    model = UdimDiffusion(card, drawing, Settings(1, "dpmpp-2m"))  # type: ignore[arg-type]
    grey = (batch.sections * 127.5 + 127.5).round()
    positions = torch.arange(1, RATIO, dtype=torch.float64) / RATIO
    model.generate(GapView(grey, positions, RATIO), lambda step: torch.zeros(5, RATIO - 1, 16, 16))
    assert len(drawing.given) == 5 * (RATIO - 1)
    for i, layer in enumerate(layers.int().tolist()):
        seen, _, its_layer = drawing.given[i * (RATIO - 1) + layer]
        assert its_layer.tolist() == [layer]
        torch.testing.assert_close(
            inputs[i : i + 1, :n_conditions], seen[:, :n_conditions], atol=1e-6, rtol=0
        )
    planes = batch.targets[torch.arange(5), layers.long()]
    noisy = (inputs[:, -1] - gamma.sqrt()[:, None, None] * planes) / (1 - gamma).sqrt()[:, None, None]
    assert noisy.std() == pytest.approx(1, abs=0.1)
    assert len(set(layers.tolist())) > 1
    assert len(set(gamma.tolist())) == 5


@pytest.mark.parametrize("axis", [1, 2])
def test_the_axial_network_sees_in_training_what_it_sees_in_use(axis: int) -> None:
    config, contrast = AxialConfig((8, 8), 1, 4, 4, reach=1), (120.0, 60.0)
    cut = CropSpec(axis, 3 * RATIO + 1, 1, 16, is_axial=True)
    batch = gaps(noise((24, 40, 40)), cut, reach=1, grey=contrast)
    learning, restoring = Seeing(config), Seeing(config)
    AxialRepair(config.multiple_px, autocast=False)(learning, batch, Draws.of(0, 0, 5))
    card = with_network(ModelCard("a", "a2i3dem", "", True, True, 0, 0, 1, 2, 12), config)
    model = AxialRestoration(card, restoring, Settings(contrast=contrast))  # type: ignore[arg-type]
    grey = (batch.sections * contrast[1] + contrast[0]).round()
    positions = torch.arange(1, RATIO, dtype=torch.float64) / RATIO
    model.generate(GapView(grey, positions, RATIO), torch.empty)
    seen = torch.cat([planes for (planes,) in restoring.given])
    torch.testing.assert_close(learning.given[0][0], seen, atol=1e-5, rtol=0)
    torch.testing.assert_close(batch.targets[:, RATIO - 1 :: RATIO], batch.sections[:, 1:-1])


@pytest.mark.parametrize("axis", [1, 2])
def test_a_patch_lies_in_one_measured_section(axis: int) -> None:
    sections = ArraySource(
        np.broadcast_to(np.arange(1, 25, dtype=np.uint8)[:, None, None], (24, 40, 40)).copy()
    )
    batch = gaps(sections, CropSpec(axis, 3 * RATIO + 1, 1, 16, is_axial=True), reach=1)
    assert batch.targets.shape == (5, 3 * RATIO - 1, 1, 16)
    assert batch.sections.shape == (5, 4, 1, 16)
    assert not batch.targets.flatten(1).std(dim=1).any()


def test_a_three_dimensional_network_is_held_against_the_planes_where_it_puts_them() -> None:
    """A network that knows the truth, in the order in which it answers, has no loss."""
    batch = gaps(ArraySource(position_coded((30, 20, 20))), CropSpec(0, 3 * RATIO + 1, 8, 8), reach=1)
    first, last = batch.sections[:, :1], batch.sections[:, -1:]

    class Knowing(nn.Module):
        def forward(self, sections: Tensor) -> Tensor:
            return torch.cat([first, batch.targets, last, last.repeat(1, RATIO - 1, 1, 1)], dim=1)

    assert Knowing()(first).shape[1] == 4 * RATIO
    assert PlanesBetween(autocast=False)(Knowing(), batch, Draws.of(0, 0, 5)) == 0


def test_noise_levels_lie_between_neighbouring_steps_of_the_chain() -> None:
    chain = torch.tensor(trained_gammas())
    assert gammas_at(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist() == pytest.approx(
        [1, float(chain[-1])]
    )
    places = torch.rand(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found, step = gammas_at(places), (places * 2000).long()
    assert ((found <= chain[step] + 1e-7) & (found >= chain[step + 1] - 1e-7)).all()


def test_what_is_said_of_difficulty_changes_nothing_of_the_noise() -> None:
    batch = gaps(noise((24, 40, 40)), CropSpec(0, RATIO + 1, 16, 16), grey=WHOLE_RANGE)

    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.noise, self.s = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.tensor(-0.5))

        def forward(self, inputs: Tensor, gamma: Tensor, layer: Tensor) -> Tensor:
            image = torch.zeros_like(inputs[:, :1])
            return torch.cat([image + self.noise, image + self.s], dim=1)

    gradients = []
    for difficulty in (False, True):
        network = Constant()
        PlaneNoise(2, False, difficulty)(network, batch, Draws.of(0, 0, 5)).backward()
        assert network.noise.grad is not None
        assert (network.s.grad is not None and bool(network.s.grad)) == difficulty
        gradients.append(float(network.noise.grad))
    assert gradients[0] == gradients[1] != 0


def test_the_distribution_loss_is_the_wasserstein_distance_of_features() -> None:
    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(rng.normal(m, s, (1, 1, 6, 8)).astype(np.float32)) for m, s in ((0, 1), (1, 2)))
    identity = Features([(torch.ones(1, 1, 1, 1), torch.full((1,), 50.0))])
    expected = wasserstein_distance(a.flatten().numpy(), b.flatten().numpy())
    assert float(distribution_loss(identity, a, b)) == pytest.approx(expected, rel=1e-5)
    shuffled = a.flatten()[torch.randperm(48)].view_as(a)
    assert float(distribution_loss(identity, a, shuffled)) == 0
    assert float(distribution_loss(Features(), a, shuffled)) > 0.01


def test_features_come_from_a_file_that_holds_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    good = {"0.weight": torch.randn(4, 3, 3, 3), "0.bias": torch.randn(4)}
    good |= {"1.weight": torch.randn(2, 4, 1, 1), "1.bias": torch.randn(2)}
    safetensors.torch.save_file(good, path)
    first, second = Features(stored_layers(path)).of(torch.randn(2, 1, 8, 6))
    assert (first.shape, second.shape) == ((2, 4, 8, 6), (2, 2, 4, 3))
    for bad in (
        {"2.bias": torch.zeros(1)},
        {"1.weight": torch.zeros(2, 5, 1, 1)},
        {"0.bias": torch.zeros(3)},
    ):
        safetensors.torch.save_file({**good, **bad}, path)
        with pytest.raises(ModelError, match="is no feature network"):
            stored_layers(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be read"):
        stored_layers(path)


KINDS_WITH_DECODER: dict[str, Sizes] = {
    "lean": LeanConfig((8, 12), 1, 4, 16),
    "udim": UdimConfig(8, (1, 2), 1, 4, 8, tile_px=16),
    "a2i3dem": AxialConfig((8, 8), 1, 4, 4),
    "sru3d": Sru3dConfig((4, 6), 1, 3),
    "pssr": PssrConfig((4, 6, 8), (0, 1, 1)),
}


@pytest.mark.parametrize("kind", KINDS_WITH_DECODER)
def test_the_decoder_is_what_comes_after_the_way_down(kind: str) -> None:
    network = new_network(kind, KINDS_WITH_DECODER[kind])
    freeze(network, "decoder")
    learning = {name for name, p in network.named_parameters() if p.requires_grad}
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert {name.split(".")[0] for name in frozen} & {"down", "enter", "head", "sections_in"}
    assert not [name for name in learning if name.startswith(("down.0", "enter", "head", "sections_in"))]
    last = {"lean": "planes_out", "pssr": "tail.weight"}.get(kind, "leave.weight")
    assert last in learning


def test_a_network_without_a_decoder_is_not_fine_tuned_in_part() -> None:
    with pytest.raises(ConfigError, match="has no decoder"):
        freeze(new_network("rcan", RcanConfig(1, 1, 4, 4)), "decoder")


def test_the_average_holds_the_running_statistics_of_the_network(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    state = TrainingState(network, 1e-3)
    state.learn(network(5 + torch.randn(4, 1, 8, 8)).square().mean(), 1e-3, 1.0, 0.9)
    state.save(tmp_path / "state", {})
    again = TrainingState(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)), 1e-3)
    again.restore(tmp_path / "state")
    for one in (state.average, again.average, again.network):
        assert torch.equal(one[1].running_mean, network[1].running_mean)  # type: ignore[index, union-attr]
        assert network[1].running_mean.abs().max() > 0.01  # type: ignore[union-attr, operator]
