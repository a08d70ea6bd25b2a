"""UDiM is the published network: parameters, operations, and every layer against float64 loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from vemdiffuse_pipe.models.card import ModelCard, with_network
from vemdiffuse_pipe.models.diffusion import UdimDiffusion
from vemdiffuse_pipe.models.protocol import GapView, Settings
from vemdiffuse_pipe.models.sizes.udim import UdimConfig
from vemdiffuse_pipe.models.udim import UdimNetwork

Array = NDArray[np.float64]
IMAGES = UdimConfig(n_conditions=1, ratio=0)
SMALL = UdimConfig(
    inner=8, multipliers=(1, 2, 3), n_groups=4, head=8, ratio=3, has_difficulty=True, tile_px=16
)

SMALL_IMAGES = UdimConfig(
    inner=8, multipliers=(1, 3), n_blocks=1, n_groups=8, head=12, n_conditions=1, ratio=0
)


def network_of(config: UdimConfig) -> UdimNetwork:
    """A network whose every weight matters (those that start at zero are drawn too)."""
    torch.manual_seed(0)
    network = UdimNetwork(config)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return network.eval()


@pytest.mark.parametrize(("config", "n"), [(UdimConfig(), 16_615_873), (IMAGES, 15_677_345)])
def test_it_has_the_parameters_of_the_published_network(config: UdimConfig, n: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in UdimNetwork(config).parameters()) == n


def test_one_forward_of_a_tile_costs_what_was_measured_of_the_published_network() -> None:
    assert UdimConfig().flop_per_pixel(1) * 256**2 == pytest.approx(103.8e9, rel=1e-3)


@pytest.mark.parametrize("config", [SMALL, IMAGES])
def test_its_operations_are_those_that_torch_counts(config: UdimConfig) -> None:
    network = UdimNetwork(config).to("meta")
    inputs = torch.zeros(1, config.n_conditions + 1, config.tile_px, config.tile_px, device="meta")
    level = torch.zeros(1, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(inputs, level, level)
    assert config.flop_per_pixel(1) == pytest.approx(counter.get_total_flops() / config.tile_px**2, rel=0.02)


class Described:
    """The network as it is described, in plain float64 arithmetic on one input (c, y, x)."""

    def __init__(self, network: UdimNetwork) -> None:
        self.w = {k: v.detach().double().numpy() for k, v in network.state_dict().items()}
        self.config = network.config

    def __call__(self, x: Array, gamma: float, layer: int) -> Array:
        c, h = self.config, self.conv("enter", x)
        embeddings = [self.mlp("embed_gamma", self.wave(gamma))]
        if c.ratio:
            embeddings.append(self.mlp("embed_layer", self.wave(layer)))
        emb, skips, i = np.concatenate(embeddings), [h], 0
        for level in range(len(c.multipliers)):
            for _ in range(c.n_blocks):
                h, i = self.block(f"down.{i}", h, emb), i + 1
                skips.append(h)
            if level < len(c.multipliers) - 1:
                h, i = self.block(f"down.{i}", h, emb, halved), i + 1
                skips.append(h)
        h = self.block("before", h, emb)
        h = self.block("after", self.attend(h), emb)
        i = 0
        for level in reversed(range(len(c.multipliers))):
            for _ in range(c.n_blocks + 1):
                h, i = self.block(f"up.{i}", np.concatenate([h, skips.pop()]), emb), i + 1
            if level:
                h, i = self.block(f"up.{i}", h, emb, doubled), i + 1
        assert not skips
        return self.conv("leave", silu(self.norm("normalise", h)))

    def block(self, name: str, x: Array, emb: Array, resize: object = None) -> Array:
        def resized(a: Array) -> Array:
            return resize(a) if callable(resize) else a

        h = self.conv(f"{name}.conv_in", resized(silu(self.norm(f"{name}.norm_in", x))))
        scale_shift = self.w[f"{name}.film.weight"] @ silu(emb) + self.w[f"{name}.film.bias"]
        scale, shift = np.split(scale_shift, 2)
        h = self.norm(f"{name}.norm_out", h) * (1 + scale[:, None, None]) + shift[:, None, None]
        h = self.conv(f"{name}.conv_out", silu(h))
        x = resized(x)
        return h + (self.conv(f"{name}.skip", x) if f"{name}.skip.weight" in self.w else x)

    def attend(self, x: Array) -> Array:
        """Every head by itself, every pixel by itself."""
        n, height, width = x.shape
        size = self.config.head
        qkv = self.conv("attention.qkv", self.norm("attention.norm", x)).reshape(n // size, 3, size, -1)
        out = np.zeros((n // size, size, height * width))
        for head, (query, key, value) in enumerate(qkv):
            for pixel in range(height * width):
                scores = query[:, pixel] @ key / math.sqrt(size)
                weights = np.exp(scores - scores.max())
                out[head, :, pixel] = value @ (weights / weights.sum())
        return x + self.conv("attention.out", out.reshape(x.shape))

    def conv(self, name: str, x: Array) -> Array:
        weight, bias = self.w[f"{name}.weight"], self.w[f"{name}.bias"]
        reach = weight.shape[-1] // 2
        padded = np.pad(x, [(0, 0), (reach, reach), (reach, reach)])
        out = np.zeros((len(weight), *x.shape[1:])) + bias[:, None, None]
        for dy in range(2 * reach + 1):
            for dx in range(2 * reach + 1):
                window = padded[:, dy : dy + x.shape[1], dx : dx + x.shape[2]]
                out += np.tensordot(weight[:, :, dy, dx], window, 1)
        return out

    def norm(self, name: str, x: Array) -> Array:
        out = np.empty_like(x)
        for group in np.split(np.arange(len(x)), self.config.n_groups):
            part = x[group]
            out[group] = (part - part.mean()) / np.sqrt(part.var() + 1e-5)
        return out * self.w[f"{name}.weight"][:, None, None] + self.w[f"{name}.bias"][:, None, None]

    def mlp(self, name: str, x: Array) -> Array:
        hidden = silu(self.w[f"{name}.0.weight"] @ x + self.w[f"{name}.0.bias"])
        return self.w[f"{name}.2.weight"] @ hidden + self.w[f"{name}.2.bias"]

    def wave(self, value: float) -> Array:
        half = self.config.inner // 2
        angles = [value * 10_000 ** (-i / half) for i in range(half)]
        return np.array([*map(math.cos, angles), *map(math.sin, angles)])


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def halved(x: Array) -> Array:
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


def doubled(x: Array) -> Array:
    return x.repeat(2, axis=1).repeat(2, axis=2)


@pytest.mark.parametrize(
    ("config", "side"),
    [(SMALL, 16), (SMALL_IMAGES, 8), pytest.param(UdimConfig(), 32, marks=pytest.mark.slow)],
)
def test_its_forward_equals_float64_loops(config: UdimConfig, side: int) -> None:
    network = network_of(config)
    inputs = torch.randn(config.n_conditions + 1, side, side, dtype=torch.float64)
    gamma, layer = torch.tensor([0.37], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64)
    expected = Described(network)(inputs.numpy(), 0.37, 1)
    with torch.no_grad():
        double = network.double()(inputs[None], gamma, layer)[0].numpy()
        single = network.float()(inputs[None].float(), gamma.float(), layer.float())[0].numpy()
    assert expected.shape == (1 + config.has_difficulty, side, side)
    assert np.abs(expected).max() > 0.1
    assert np.abs(double - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.abs(single - expected).max() < 1e-3 * np.abs(expected).max()


def test_it_is_given_the_lower_section_the_upper_one_the_noisy_plane_and_its_number_from_0() -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    class Watched(UdimNetwork):
        def forward(
            self, inputs: torch.Tensor, gamma: torch.Tensor, layer: torch.Tensor | None = None
        ) -> torch.Tensor:
            assert layer is not None
            seen.append((inputs, gamma, layer))
            return torch.zeros_like(inputs[:, :1])

    card = with_network(ModelCard("u", "udim", "", True, False, 0, 0, 1, 3, 3), SMALL)
    sections = torch.stack([torch.zeros(16, 16), torch.full((16, 16), 255.0)])[None]
    gap = GapView(sections, torch.tensor([1 / 3, 2 / 3], dtype=torch.float64), 3)
    noise = torch.randn(1, 2, 16, 16)
    UdimDiffusion(card, Watched(SMALL), Settings(1, "dpmpp-2m")).generate(gap, lambda step: noise)
    assert [int(layer) for _, _, layer in seen] == [0, 1]
    for i, (inputs, gamma, _) in enumerate(seen):
        assert (inputs[0, 0] == -1).all()
        assert (inputs[0, 1] == 1).all()
        between = 2 * (i + 1) / 3 - 1  # a flow begins around the interpolation
        begun = gamma.sqrt() * between + (1 - gamma).sqrt() * noise[0, i]
        assert torch.allclose(inputs[0, 2], begun, atol=1e-5)
