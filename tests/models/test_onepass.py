"""One-pass networks are given the right sections, and their answer is put at the right planes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vemdiffuse_pipe.models.a2i3dem import AxialNetwork
from vemdiffuse_pipe.models.card import ModelCard, with_network
from vemdiffuse_pipe.models.onepass import AxialRestoration, VolumetricNetwork
from vemdiffuse_pipe.models.protocol import GapView, Settings
from vemdiffuse_pipe.models.sizes.a2i3dem import AxialConfig
from vemdiffuse_pipe.models.sizes.sru3d import Sru3dConfig
from vemdiffuse_pipe.models.sru3d import Sru3dNetwork

R, SIDE = 3, 32
SETTINGS = Settings(contrast=(128.0, 50.0))


def gap(n_sections: int) -> GapView:
    sections = torch.randint(0, 256, (2, n_sections, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    return GapView(sections.float(), torch.tensor([1 / 3, 2 / 3], dtype=torch.float64), R)


class Untouched(AxialNetwork):
    """Restores nothing."""

    def forward(self, planes: Tensor) -> Tensor:
        assert planes.shape[2] % self.config.multiple_px == 0
        return planes


@pytest.mark.parametrize("reach", [0, 1, 2])
@pytest.mark.parametrize("has_both_axes", [False, True])
def test_axial_planes_left_as_they_are_make_linear_interpolation(reach: int, has_both_axes: bool) -> None:
    config = AxialConfig((8, 8), 1, 4, 4, reach, has_both_axes)
    card = with_network(ModelCard("a", "a2i3dem", "", True, True, 0, 0, 1, 2, 12), config)
    view = gap(2 + 2 * reach)
    planes = AxialRestoration(card, Untouched(config), SETTINGS).generate(view, torch.empty)
    lower, upper = view.sections[:, reach, None], view.sections[:, reach + 1, None]
    assert torch.allclose(planes, torch.lerp(lower, upper, view.positions.float()[:, None, None]), atol=1e-3)


class Numbered(Sru3dNetwork):
    """Planes that hold their numbers."""

    def forward(self, sections: Tensor) -> Tensor:
        n = sections.shape[1] * self.config.ratio
        return torch.arange(n).float()[None, :, None, None].expand(len(sections), n, SIDE, SIDE)


@pytest.mark.parametrize("reach", [0, 1])
def test_the_planes_taken_of_a_volume_are_those_above_the_lower_section(reach: int) -> None:
    config = Sru3dConfig((4, 4), 1, R, reach, SIDE)
    card = with_network(ModelCard("s", "sru3d", "", True, True, 0, 0, 1, R, R), config)
    planes = VolumetricNetwork(card, Numbered(config), SETTINGS).generate(gap(2 + 2 * reach), torch.empty)
    numbers = (planes[:, :, 0, 0] - 128) / 50
    assert torch.allclose(numbers, torch.tensor([[reach * R + 1.0, reach * R + 2.0]]).expand(2, 2))
