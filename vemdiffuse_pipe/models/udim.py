"""UDiM, the network of vEMDiffuse: the noise in one plane, given the two sections of its gap.

    lower, upper, noisy --conv--> 32 --> 64 --> 128 --> 256 --attention--> back up --conv--> noise
                                  1      1/2    1/4     1/8     (what was met on the way down beside it)

Every residual block is given the noise level, as a continuous gamma (Chen et al. 2021), and the number of
the plane, by scale and shift (Perez et al. 2018). Group normalisation and attention look over the whole
tile, so tiles have one size and are not exact. Lu et al. 2024, from its description; 16,615,873 parameters
with the number of the plane, 15,677,345 without, conditioned on one image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vemdiffuse_pipe.models.sizes.udim import UdimBlock, UdimConfig

DROPOUT = 0.2


class UdimNetwork(nn.Module):
    """The noise in a plane: see `forward`."""

    def __init__(self, config: UdimConfig = UdimConfig()) -> None:  # noqa: B008 (frozen)
        super().__init__()
        self.config = config
        width, n_embedding = config.widths[-1], config.n_embedding
        self.embed_gamma = _mlp(config.inner, n_embedding)
        self.embed_layer = _mlp(config.inner, n_embedding) if config.ratio else None
        self.enter = nn.Conv2d(config.n_conditions + 1, config.inner, 3, padding=1)
        self.down = nn.ModuleList(UdimResidual(block, config) for block in config.down())
        middle = UdimBlock(width, width, len(config.widths) - 1)
        self.before = UdimResidual(middle, config)
        self.attention = Attention(width, config)
        self.after = UdimResidual(middle, config)
        self.up = nn.ModuleList(UdimResidual(block, config) for block in config.up())
        self.normalise = GroupNorm(config.n_groups, config.widths[0])
        self.leave = _zeroed(nn.Conv2d(config.widths[0], 1 + config.has_difficulty, 3, padding=1))

    @property
    def decoder(self) -> tuple[str, ...]:
        """Prefixes of the names of the parameters of the bottleneck and of all that follows it."""
        return "before.", "attention.", "after.", "up.", "normalise.", "leave."

    def forward(self, inputs: Tensor, gamma: Tensor, layer: Tensor | None = None) -> Tensor:
        """The noise: (b, 1, y, x); with a difficulty head, the logarithm of its variance second.

        `inputs`: (b, c, y, x), grey in [-1, 1]: lower section, upper section (or one condition), and last
        the noisy plane sqrt(gamma) x0 + sqrt(1 - gamma) noise. `gamma`: (b,) in [0, 1]. `layer`: (b,), the
        number of the plane in its gap, from 0. y and x are multiples of 2 to the number of halvings.
        """
        emb = self._embed(gamma, layer)
        h = self.enter(inputs)
        kept = [h]
        for block in self.down:
            h = block(h, emb)
            kept.append(h)
        h = self.after(self.attention(self.before(h, emb)), emb)
        for block in self.up:
            h = block(h if block.resize else torch.cat([h, kept.pop()], dim=1), emb)
        out: Tensor = self.leave(F.silu(self.normalise(h)))
        return out

    def _embed(self, gamma: Tensor, layer: Tensor | None) -> Tensor:
        parts: list[Tensor] = [self.embed_gamma(sinusoid(gamma, self.config.inner))]
        if self.embed_layer is not None:
            assert layer is not None, "a network that knows its layers is given the layer"
            parts.append(self.embed_layer(sinusoid(layer, self.config.inner)))
        return F.silu(torch.cat(parts, dim=1))


class UdimResidual(nn.Module):
    """x + conv(drop(silu(film(norm(conv(resize(silu(norm(x))))))))), x by a 1 x 1 convolution where wider."""

    def __init__(self, block: UdimBlock, config: UdimConfig) -> None:
        super().__init__()
        self.resize = block.resize
        n_embedding = config.n_embedding * (2 if config.ratio else 1)
        self.norm_in = GroupNorm(config.n_groups, block.c_in)
        self.conv_in = nn.Conv2d(block.c_in, block.c_out, 3, padding=1)
        self.film = nn.Linear(n_embedding, 2 * block.c_out)
        self.norm_out = GroupNorm(config.n_groups, block.c_out)
        self.conv_out = _zeroed(nn.Conv2d(block.c_out, block.c_out, 3, padding=1))
        self.skip = nn.Identity() if block.c_in == block.c_out else nn.Conv2d(block.c_in, block.c_out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """(b, c, y, x) -> (b, c', y', x'); `emb`: (b, e), activated."""
        h = self.conv_in(self._resized(F.silu(self.norm_in(x))))
        scale, shift = self.film(emb)[:, :, None, None].chunk(2, dim=1)
        h = F.silu(torch.addcmul(shift, self.norm_out(h), 1 + scale))
        h = self.conv_out(F.dropout(h, DROPOUT, self.training))
        out: Tensor = self.skip(self._resized(x)) + h
        return out

    def _resized(self, x: Tensor) -> Tensor:
        if self.resize == 0:
            return x
        return F.interpolate(x, scale_factor=2.0) if self.resize > 0 else F.avg_pool2d(x, 2)


class Attention(nn.Module):
    """x + what every pixel gathers from all others. A head's channels lie together: query, key, value."""

    def __init__(self, channels: int, config: UdimConfig) -> None:
        super().__init__()
        self.head = config.head
        self.norm = GroupNorm(config.n_groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, y, x) -> the same."""
        qkv = self.qkv(self.norm(x)).flatten(2).unflatten(1, (-1, 3, self.head)).transpose(-1, -2)
        query, key, value = qkv.contiguous().unbind(2)
        gathered = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = x + self.out(gathered.transpose(-1, -2).reshape(x.shape))
        return out


class GroupNorm(nn.GroupNorm):
    """Group normalisation, in float32 whatever comes."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, y, x) -> the same."""
        h = x.to(self.weight.dtype)
        if self.weight.requires_grad and torch.is_grad_enabled() and not h.requires_grad:
            # The first layer that learns after frozen ones: on a CPU torch 2.13 crashes in its backward pass
            # for a channels-last input that needs no gradient.
            h = h.detach().requires_grad_()
        return super().forward(h).to(x.dtype)


def sinusoid(values: Tensor, dimension: int) -> Tensor:
    """Cosines, then sines, of `values` (b,) times 1 down to 1e-4, geometrically: (b, dimension)."""
    half = dimension // 2
    frequencies = torch.exp(-math.log(1e4) / half * torch.arange(half, device=values.device))
    angles = values[:, None] * frequencies.to(values.dtype)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _mlp(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, n_out), nn.SiLU(), nn.Linear(n_out, n_out))


def _zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer, its weights zero: a block starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
