"""Train the default model's networks on FIB-25: `train_default.py DATA FOLDER --network estimator`.

Goes on where FOLDER/state.safetensors was written, to the same weights as if it had never stopped. Validates
on sections 180 to 199 of volume a. The test part begins at section 220.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
import torch
from torch import Tensor

from vemdiffuse_pipe.models.edm import SIGMA_MAX, SIGMA_MIN, dpmpp_2m, karras_sigmas, preconditioning
from vemdiffuse_pipe.models.gap_networks import EstimatorNetwork, SamplerNetwork
from vemdiffuse_pipe.training.degraded import DegradedBatches, DegradedGaps, conditions_of
from vemdiffuse_pipe.training.microscope import Cutting, Imaging, cut_gap
from vemdiffuse_pipe.training.objectives.draws import Draws
from vemdiffuse_pipe.training.objectives.gaps import Estimation, PlaneDiffusion
from vemdiffuse_pipe.training.prefetch import Prefetched
from vemdiffuse_pipe.training.recipes import Recipe
from vemdiffuse_pipe.training.state import TrainingState

SCALE = 0.4
NETWORKS = {"estimator": (EstimatorNetwork, Estimation), "sampler": (SamplerNetwork, PlaneDiffusion)}
HELD = [(5, 1.0, 1.0), (8, 1.0, 1.0), (10, 1.0, 1.0), (4, 4.0, 1.0), (5, 5.0, 1.0), (4, 4.0, 4.0)]  # r, section, plane


def main() -> None:
    """Train, log, validate."""
    options = _options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    kind, objective = NETWORKS[options.network]
    network, learn = kind(), objective(SCALE)
    for parameter in (p for p in network.parameters() if p.dim() == 4):
        parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    state = TrainingState(network, options.lr)
    options.folder.mkdir(parents=True, exist_ok=True)
    path, log = options.folder / "state.safetensors", options.folder / "log.jsonl"
    state.restore(path)
    volume = tifffile.imread(options.data / "volume_a_raw.tif")
    others = [tifffile.imread(options.data / f"volume_{name}_raw.tif") for name in "bc"]
    recipe = Recipe(without=frozenset(options.without))
    batches = DegradedBatches([volume[:180], *others], recipe, batch_size=options.batch, seed=options.seed, end_share=0.33 * (options.network == "estimator"))
    began = saved = time.monotonic()
    before, losses = state.progress.elapsed_s, []

    def record(**values: object) -> None:
        with log.open("a") as file:
            print(json.dumps(values), file=file)

    steps = range(state.progress.step, options.steps)
    with Prefetched(batches.batch, steps) as made:
        for step, batch in zip(steps, made, strict=True):
            loss = learn(network, batch, Draws.of(options.seed, step, options.batch))
            lr = lr_at(step, options)
            state.learn(loss, lr, 1.0, min(0.999, (step + 1) / (step + 10)))
            losses.append(loss.detach())
            done, now = step + 1, time.monotonic()
            state.progress = replace(state.progress, step=done, elapsed_s=before + now - began)
            if done % 25 == 0:
                mean = float(torch.stack(losses).mean())
                assert math.isfinite(mean)
                record(step=done, loss=round(mean, 5), lr=round(lr, 7), seconds=round(state.progress.elapsed_s), waited=round(made.waited_s, 1))
                losses.clear()
            if done % options.validate_every == 0 or done == options.steps:
                record(step=done, scores=validated(options.network, state.average.eval(), volume, batches.contrast[0]))
            if now - saved > options.save_s or done == options.steps:
                state.save(path, {"network": options.network, "seed": options.seed})
                saved = time.monotonic()


def lr_at(step: int, options: argparse.Namespace) -> float:
    """Warm-up, constant, and over the last third a cosine to zero."""
    begin = options.steps * (1 - options.decay)
    done = max(0.0, (step - begin) / (options.steps - begin))
    return float(options.lr * min(1.0, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * done)))


def validated(name: str, network: torch.nn.Module, volume: np.ndarray, contrast: tuple[float, float]) -> dict[str, list[float]]:
    """By r and thickness: PSNR, gain on linear, spread over error; of samples PSNR, HF x and y, flicker."""
    voxels = (torch.from_numpy(volume[180:200, 100:356, 100:356].astype(np.float32)) - contrast[0]) / contrast[1]
    scores = {}
    for r, section, plane in HELD:
        if name == "estimator" or section == plane:
            gap = held_gap(voxels, Cutting(r, section=section, plane=plane))
            scores[f"{r}/{section:g}/{plane:g}"] = (_estimate if name == "estimator" else _sample)(network, gap, contrast[1])
    return scores


def held_gap(voxels: Tensor, cutting: Cutting) -> DegradedGaps:
    """A gap in the middle of what is held back; a further section that is not there is mirrored."""
    missing = max(0, cutting.depth - len(voxels))
    low, high = missing // 2, missing - missing // 2
    held = torch.cat([voxels[:1].expand(low, -1, -1), voxels, voxels[-1:].expand(high, -1, -1)]) if missing else voxels
    gap = cut_gap(held, cutting, Imaging(), 240, torch.Generator())
    sections = gap.sections
    if missing:
        sections = sections[[2, 1, 2, 1]]
    scale = 1 / (1 - 0.011 * (cutting.section - 1))
    parts = [t[None] * scale for t in (sections, gap.clean, gap.noisy, gap.noise_variance)]
    return DegradedGaps(*parts, torch.tensor([conditions_of(cutting, 10.0)]), torch.arange(1, cutting.ratio) / cutting.ratio, cutting.ratio)


@torch.no_grad()
def _estimate(network: EstimatorNetwork, gap: DegradedGaps, deviation: float) -> list[float]:
    t = torch.arange(1, gap.ratio) / gap.ratio
    with torch.autocast("cpu", torch.bfloat16):
        mean, spread = network(gap.sections, t, float(gap.ratio), gap.conditions)
    linear = torch.lerp(gap.sections[:, 1:2], gap.sections[:, 2:3], t[:, None, None])
    error = linear + SCALE * mean.float() - gap.clean
    ratio = (SCALE**2 * spread.float().exp()).mean().sqrt() / error.square().mean().sqrt()
    psnr, plain = (20 * math.log10(255 / deviation / float(e.square().mean().sqrt())) for e in (error, linear - gap.clean))
    return [round(v, 3) for v in (psnr, psnr - plain, float(ratio))]


@torch.no_grad()
def _sample(network: SamplerNetwork, gap: DegradedGaps, deviation: float) -> list[float]:
    t = torch.arange(1, gap.ratio) / gap.ratio

    def denoise(x: Tensor, sigma: float) -> Tensor:
        c_skip, c_out, c_in, c_noise = preconditioning(torch.full((1, 1, 1, 1), sigma))
        with torch.autocast("cpu", torch.bfloat16):
            raw = network(c_in * x, gap.sections, t, float(gap.ratio), gap.conditions, c_noise.flatten())
        return c_skip * x + c_out * raw.float()

    noise = torch.randn(gap.clean.shape, generator=torch.Generator().manual_seed(0))
    drawn = dpmpp_2m(denoise, noise, karras_sigmas(8, SIGMA_MIN, SIGMA_MAX))
    planes = torch.lerp(gap.sections[:, 1:2], gap.sections[:, 2:3], t[:, None, None]) + SCALE * drawn
    psnr = 20 * math.log10(255 / deviation / float((planes - gap.clean).square().mean().sqrt()))
    ratios = [float(f(planes) / f(gap.clean)) for f in (lambda p: _fine(p, 3), lambda p: _fine(p, 2), _steps)]
    return [round(v, 3) for v in (psnr, *ratios)]


def _fine(planes: Tensor, axis: int) -> Tensor:
    planes = planes.movedim(axis, -1)
    n = planes.shape[-1]
    power = torch.fft.rfft(planes * torch.hann_window(n)).abs().square()
    return power[..., n // 4 :].mean()


def _steps(planes: Tensor) -> Tensor:
    return planes.diff(dim=1).square().mean().sqrt()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="the folder fib25")
    parser.add_argument("folder", type=Path, help="for the state and the log")
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--decay", type=float, default=0.3, help="share of steps over which the rate falls")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--validate-every", type=int, default=400)
    parser.add_argument("--save-s", type=float, default=240)
    parser.add_argument("--without", nargs="*", default=[], help="factors to leave out")
    return parser.parse_args()


if __name__ == "__main__":
    main()
