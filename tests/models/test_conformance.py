"""Every kind of model, small and with random weights, and the interpolations."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch

from vemdiffuse_pipe.models.card import ModelCard, find_card
from vemdiffuse_pipe.models.checkpoint import load_model, new_network, save_checkpoint
from vemdiffuse_pipe.models.kinds import KINDS
from vemdiffuse_pipe.models.protocol import Model
from vemdiffuse_pipe.models.sizes.a2i3dem import AxialConfig
from vemdiffuse_pipe.models.sizes.gap import EstimatorSizes, SamplerSizes
from vemdiffuse_pipe.models.sizes.lean import LeanConfig
from vemdiffuse_pipe.models.sizes.protocol import Sizes
from vemdiffuse_pipe.models.sizes.sru3d import Sru3dConfig
from vemdiffuse_pipe.models.sizes.udim import UdimConfig
from vemdiffuse_pipe.testing.models import CONTRAST, ModelCase, ModelConformance

LEAN = LeanConfig(channels=(8, 12), n_blocks=1, n_basis=4, n_embedding=16)
UDIM = UdimConfig(inner=8, multipliers=(1, 2), n_blocks=1, n_groups=4, head=8, ratio=3, tile_px=32)
CDDPM = UdimConfig(
    inner=8, multipliers=(1, 2), n_blocks=1, n_groups=4, head=8, n_conditions=1, ratio=0, tile_px=32
)
SRU3D = Sru3dConfig(channels=(4, 6), n_convolutions=1, ratio=3, tile_px=32)

SAMPLER = SamplerSizes(channels=(8, 12), n_blocks=1, n_basis=4, n_embedding=16)
AXIAL = AxialConfig(channels=(8, 12), n_blocks=1, window=4, head=4, has_both_axes=True)
SIZES: dict[str, Sizes] = {
    "lean": LEAN,
    "regression": LEAN,
    "udim": UDIM,
    "cddpm": CDDPM,
    "a2i3dem": AXIAL,
    "sru3d": SRU3D,
    "estimator": EstimatorSizes(channels=(8, 12), n_blocks=1, n_basis=4, n_embedding=16),
    "sampler": SAMPLER,
    "estimator-sampler": replace(SAMPLER, reach=0),
}


@cache
def checkpoint(kind: str) -> str:
    """A checkpoint with weights that all matter."""
    torch.manual_seed(1)
    sizes, network = SIZES[kind], new_network(kind, SIZES[kind])
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn_like(p))
    path = Path(mkdtemp()) / f"{kind}.safetensors"
    card = ModelCard(kind, kind, "", False, False, 0, 0, 1, sizes.ratio or 2, sizes.ratio or 12, steps=2)
    save_checkpoint(path, network, card)  # type: ignore[arg-type]
    return str(path)


def loaded(name: str, sampler: str, steps: int) -> Model:
    """A shipped model, or one of a kind with random weights."""
    stored = checkpoint(name) if name in SIZES else name
    return load_model(stored, steps=steps, contrast=CONTRAST, precision="float32", sampler=sampler)


def case(name: str, side: int = 64, sampler: str = "", steps: int = 2) -> ModelCase:
    return ModelCase(partial(loaded, name, sampler), side=side, sampler=sampler, steps=steps)


CASES = {
    "linear": case("linear", side=32),
    "cubic": case("cubic", side=32, steps=1),
    "flow": case("flow", side=256, steps=1),
    "lean": case("lean", sampler="heun", steps=3),
    "regression": case("regression", steps=1),
    "udim": case("udim", side=32, sampler="ancestral-rescaled"),
    "cddpm": case("cddpm", side=32),
    "a2i3dem": case("a2i3dem", steps=1),
    "sru3d": case("sru3d", side=32, steps=1),
    "estimator": case("estimator", steps=1),
    "sampler": case("sampler", side=80),
    "estimator-sampler": case("estimator-sampler", side=80),
}


class TestModels(ModelConformance):
    @pytest.fixture(params=CASES)
    def case(self, request: pytest.FixtureRequest) -> ModelCase:
        return CASES[request.param]


@pytest.mark.parametrize("kind", SIZES)
def test_a_checkpoint_holds_the_card_that_its_model_has(kind: str) -> None:
    card = CASES[kind].card
    assert card == find_card(checkpoint(kind))
    assert card.network_sizes == SIZES[kind]
    assert card.is_stochastic == bool(card.samplers)


def test_every_kind_that_fills_gaps_is_tested() -> None:
    assert {case.card.kind for case in CASES.values()} == {
        name for name, kind in KINDS.items() if kind.fills_gaps
    }
