"""RCAN and PSSR: sizes, parameters and operations as stated, and exact under tiling or declared not to be."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vemdiffuse_pipe.models import pssr
from vemdiffuse_pipe.models.kinds import KINDS
from vemdiffuse_pipe.models.pssr import Pssr
from vemdiffuse_pipe.models.rcan import Rcan
from vemdiffuse_pipe.models.sizes.plain import PssrConfig, RcanConfig

SMALL_RCAN = RcanConfig(n_groups=2, n_blocks=2, channels=8, reduction=4, tile_px=128)
SMALL_PSSR = PssrConfig(channels=(4, 8, 12), n_blocks=(0, 1, 2))


def counted_flop(network: nn.Module, size: int) -> float:
    """Operations of a forward pass a pixel, counted convolution by convolution; pooled ones left out."""
    total = 0.0

    def add(module: nn.Module, _: object, out: torch.Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        per_pixel = 2 * module.in_channels * module.out_channels * module.kernel_size[0] ** 2
        total_here = per_pixel * out.shape[2] * out.shape[3]
        nonlocal total
        total += total_here if out.shape[2] > 1 else 0

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(add)
    network(torch.zeros(1, 1, size, size))
    return total / size**2


def test_shapes_and_operations_are_those_that_are_stated() -> None:
    for network in (Rcan(SMALL_RCAN), Pssr(SMALL_PSSR)):
        assert network(torch.zeros(2, 1, 16, 24)).shape == (2, 1, 16, 24)
        assert network.config.flop_per_pixel(1) == pytest.approx(counted_flop(network, 16))


def test_parameters_of_the_papers_sizes() -> None:
    """RCAN: 200 blocks of two 64 x 64 convolutions and an attention through 4 channels."""
    block = 2 * (9 * 64 * 64 + 64) + (64 * 4 + 4) + (4 * 64 + 64)
    conv = 9 * 64 * 64 + 64
    expected = 10 * (20 * block + conv) + conv + (9 * 64 + 64) + (9 * 64 + 1)
    with torch.device("meta"):
        assert sum(p.numel() for p in Rcan().parameters()) == expected == 15_294_625
        n = sum(p.numel() for p in Pssr().parameters())
    assert n == 27_369_985


def test_attention_over_the_image_is_declared_not_tile_exact_and_pssr_is_exact() -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 1, 128, 128)
    outside = image.clone()
    outside[..., 120:] += 3
    middle = (..., slice(48, 64), slice(48, 64))
    for kind, network in (("rcan", Rcan(SMALL_RCAN)), ("pssr", Pssr(SMALL_PSSR))):
        with torch.no_grad():
            same = torch.equal(network(image)[middle], network(outside)[middle])
        assert same == KINDS[kind].is_tile_exact


def test_no_pixel_beyond_the_stated_context_changes_what_pssr_answers() -> None:
    """The gradient of a pixel, at each place within the coarsest one, reaches no further, almost so far."""
    torch.manual_seed(0)
    network, furthest = Pssr(SMALL_PSSR), 0
    for at in range(60, 64):
        image = torch.randn(1, 1, 128, 128, requires_grad=True)
        network(image)[0, 0, at, at].backward()
        assert image.grad is not None
        reached = image.grad[0, 0].abs().sum(1).nonzero()[:, 0]
        furthest = max(furthest, int((reached - at).abs().max()))
    assert furthest <= SMALL_PSSR.context_px <= furthest + 4


def test_a_new_pssr_grows_without_a_checkerboard() -> None:
    torch.manual_seed(0)
    grown = pssr._growing(6, 4)(torch.randn(1, 6, 5, 5))
    corners = [grown[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
    assert all(torch.equal(corners[0], corner) for corner in corners[1:])


def test_sizes_that_make_no_network_are_refused() -> None:
    with pytest.raises(ValueError, match="as many are needed"):
        PssrConfig(n_blocks=(1, 1))
