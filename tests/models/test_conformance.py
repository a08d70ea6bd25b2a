"""Every kind of model, small and with random weights, and the interpolations."""

from __future__ import annotations

import pytest
from conformance import Case, ModelConformance

from vemdiffuse_pipe.models.kinds import KINDS
from vemdiffuse_pipe.models.sizes.a2i3dem import AxialConfig
from vemdiffuse_pipe.models.sizes.gap import EstimatorSizes, SamplerSizes
from vemdiffuse_pipe.models.sizes.lean import LeanConfig
from vemdiffuse_pipe.models.sizes.sru3d import Sru3dConfig
from vemdiffuse_pipe.models.sizes.udim import UdimConfig

GAP = {"channels": (8, 12), "n_blocks": 1, "n_basis": 4, "n_embedding": 16}
LEAN = LeanConfig(channels=(8, 12), n_blocks=1, n_basis=4, n_embedding=16)
UDIM = UdimConfig(inner=8, multipliers=(1, 2), n_blocks=1, n_groups=4, head=8, ratio=3, tile_px=32)
CDDPM = UdimConfig(
    inner=8, multipliers=(1, 2), n_blocks=1, n_groups=4, head=8, n_conditions=1, ratio=0, tile_px=32
)
SRU3D = Sru3dConfig(channels=(4, 6), n_convolutions=1, ratio=3, tile_px=32)

AXIAL = AxialConfig(channels=(8, 12), n_blocks=1, window=4, head=4, has_both_axes=True)
CASES = {
    "linear": Case("linear", side=32),
    "cubic": Case("cubic", side=32),
    "lean": Case("lean", LEAN, sampler="heun", steps=3),
    "regression": Case("regression", LEAN, steps=1),
    "udim": Case("udim", UDIM, side=32, sampler="ancestral-rescaled"),
    "cddpm": Case("cddpm", CDDPM, side=32),
    "a2i3dem": Case("a2i3dem", AXIAL, steps=1),
    "sru3d": Case("sru3d", SRU3D, side=32, steps=1),
    "estimator": Case("estimator", EstimatorSizes(**GAP), steps=1),
    "sampler": Case("sampler", SamplerSizes(**GAP), side=80),
    "estimator-sampler": Case("estimator-sampler", SamplerSizes(**GAP, reach=0), side=80),
}


class TestModels(ModelConformance):
    @pytest.fixture(params=CASES)
    def case(self, request: pytest.FixtureRequest) -> Case:
        return CASES[request.param]


def test_every_kind_that_fills_gaps_is_here() -> None:
    kinds = {"interpolation", *(case.kind for case in CASES.values() if case.sizes)}
    assert kinds == {name for name, kind in KINDS.items() if kind.fills_gaps}
