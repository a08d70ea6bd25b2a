"""The lean network as a model: EDM denoiser of the residual, driven by DPM-Solver++(2M)."""

from __future__ import annotations

import torch
from torch import Tensor

from vemdiffuse_pipe.models.card import ModelCard
from vemdiffuse_pipe.models.edm import dpmpp_2m, karras_sigmas, preconditioning
from vemdiffuse_pipe.models.lean import LeanNetwork
from vemdiffuse_pipe.models.protocol import GapView


class LeanDiffusion:
    """Draws planes: linear interpolation plus a residual sampled from its distribution given the sections.

    `contrast`: mean and deviation of the volume's grey levels; the network sees standardised grey.
    With one evaluation the result is the one-pass prediction, and the noise does not matter.
    """

    def __init__(
        self,
        card: ModelCard,
        network: LeanNetwork,
        *,
        steps: int,
        contrast: tuple[float, float],
        precision: str,
    ) -> None:
        self.card = card
        self.network = network.eval().requires_grad_(False)
        self.steps = steps
        self.mean, self.std = contrast
        self.autocast = precision == "bfloat16"

    @torch.inference_mode()
    def generate(self, gap: GapView, noise: Tensor) -> Tensor:
        """One sample for each tile: (b, n, y, x) float32 grey levels.

        On a CPU tiles are taken one by one: convolutions round otherwise for other batch sizes.
        """
        if noise.device.type != "cpu":
            return self._sample(gap, noise)
        tiles = zip(gap.sections.split(1), noise.split(1), strict=True)
        return torch.cat([self._sample(GapView(s, gap.positions, gap.ratio), n) for s, n in tiles])

    def _sample(self, gap: GapView, noise: Tensor) -> Tensor:
        sections = ((gap.sections - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        positions = gap.positions.float()

        def denoise(x: Tensor, sigma: float) -> Tensor:
            levels = torch.full((len(x), 1, 1, 1), sigma, device=x.device)
            c_skip, c_out, c_in, c_noise = preconditioning(levels)
            with torch.autocast(x.device.type, torch.bfloat16, enabled=self.autocast):
                raw = self.network(c_in * x, sections, positions, float(gap.ratio), c_noise.flatten())
            x0: Tensor = c_skip * x + c_out * raw.float()
            return x0

        residual: Tensor = dpmpp_2m(
            denoise, noise.contiguous(memory_format=torch.channels_last), karras_sigmas(self.steps)
        )
        linear: Tensor = torch.lerp(sections[:, :1], sections[:, 1:], positions[:, None, None])
        grey: Tensor = (linear + self.card.residual_scale * residual) * self.std + self.mean
        return grey
