"""Networks that draw samples, as models: the lean one on residuals, UDiM and its like on grey levels."""

from __future__ import annotations

import torch
from torch import Tensor

from vemdiffuse_pipe.models.interpolation import linear_planes
from vemdiffuse_pipe.models.lean import LeanNetwork
from vemdiffuse_pipe.models.network import NetworkModel
from vemdiffuse_pipe.models.preconditioning import edm_denoiser, noise_predicting_denoiser
from vemdiffuse_pipe.models.protocol import GapView
from vemdiffuse_pipe.models.samplers import EDM_RANGE, Noise, NoiseRange, draw
from vemdiffuse_pipe.models.udim import UdimNetwork

# Mean and deviation that take grey levels 0 to 255 to [-1, 1].
WHOLE_RANGE = (127.5, 127.5)
# Grey levels of UDiM lie in [-1, 1], and it is trained from 0.001 to 151. An error of the noise that it
# predicts is sigma times as large in the plane, and a flow, unlike a chain, keeps it: started at 80 a sample
# ends under noise of 20 grey levels. So flows start around the interpolation, under noise of 127 grey levels,
# in which it drowns, and end at 5, which the last evaluation takes away (benchmarks/README.md).
UDIM_LEVELS = NoiseRange(0.04, 1.0)


class LeanDiffusion(NetworkModel[LeanNetwork]):
    """Draws planes: linear interpolation plus a residual sampled from its distribution given the sections.

    The network sees standardised grey. With one evaluation the result is the one-pass prediction, and the
    noise does not matter.
    """

    def _planes(self, gap: GapView, noise: Noise) -> Tensor:
        sections, positions = self._standardised(gap.sections), gap.positions.float()

        def network(scaled: Tensor, c_noise: Tensor) -> Tensor:
            with self._in_precision(scaled):
                raw: Tensor = self.network(scaled, sections, positions, float(gap.ratio), c_noise)
            return raw

        def channels_last(step: int) -> Tensor:
            return noise(step).contiguous(memory_format=torch.channels_last)

        denoise = edm_denoiser(network)
        residual = draw(self.settings.sampler, denoise, channels_last, self.settings.steps, EDM_RANGE)
        return self._grey(linear_planes(sections, positions) + self.card.residual_scale * residual)


class UdimDiffusion(NetworkModel[UdimNetwork]):
    """Draws planes one by one, by what UDiM says is noise in them, given the sections or what lies between.

    Grey levels 0..255 are [-1, 1] to the network, and so is what it takes for the plane (x0), always.
    """

    def _planes(self, gap: GapView, noise: Noise) -> Tensor:
        middle, half = WHOLE_RANGE
        sections = (gap.sections - middle) / half
        positions = gap.positions.float()

        def predict(noisy: Tensor, gamma: float) -> Tensor:
            planes = [self._noise_in(noisy[:, i], gamma, sections, t) for i, t in enumerate(layers)]
            return torch.stack(planes, dim=1)

        layers = [(float(t), round(float(t) * gap.ratio) - 1) for t in positions]
        denoise = noise_predicting_denoiser(predict)
        x0 = draw(
            self.settings.sampler,
            lambda x, sigma: denoise(x, sigma).clamp(-1, 1),
            noise,
            self.settings.steps,
            UDIM_LEVELS,
            around=linear_planes(sections, positions),
        )
        return x0 * half + middle

    def _noise_in(self, noisy: Tensor, gamma: float, sections: Tensor, at: tuple[float, int]) -> Tensor:
        """The noise in one plane: (b, y, x) -> the same. `at`: its position and its number in the gap."""
        levels, positions, layers = (
            torch.full((len(noisy),), float(value), device=noisy.device) for value in (gamma, *at)
        )
        inputs = udim_inputs(self.network.config.n_conditions, sections, noisy[:, None], positions)
        with self._in_precision(noisy):
            out: Tensor = self.network(inputs, levels, layers)
        return out[:, 0].float()


def udim_inputs(n_conditions: int, sections: Tensor, noisy: Tensor, positions: Tensor) -> Tensor:
    """What UDiM sees of planes: what is known of each, and last the noisy plane: (b, n_conditions + 1, y, x).

    `sections`: (b, 2, y, x), which are known, or with one condition what lies between them at `positions`
    (b,). `noisy`: (b, 1, y, x). Grey in [-1, 1].
    """
    condition = sections if n_conditions == 2 else linear_planes(sections, positions[:, None])
    return torch.cat([condition, noisy], dim=1).contiguous(memory_format=torch.channels_last)
