"""Train a network of the default model on FIB-25: `train_default.py DATA FOLDER --network estimator`.

Goes on where FOLDER/state.safetensors was written, to the same weights as if it had never stopped, as long as
the options are the same. Learns from sections 0 to 179 of volume a and from volumes b and c; validates on
sections 180 to 199 of volume a. The test part begins at section 220.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import tifffile
import torch

from vemdiffuse_pipe.comparison.in_memory import reconstruct_in_memory
from vemdiffuse_pipe.config import ModelTable, RunTable
from vemdiffuse_pipe.evaluation.degradation import degrade
from vemdiffuse_pipe.evaluation.report import evaluate
from vemdiffuse_pipe.models.card import ModelCard
from vemdiffuse_pipe.models.checkpoint import new_network, on_device, save_checkpoint
from vemdiffuse_pipe.models.kinds import KINDS
from vemdiffuse_pipe.training.degraded import DegradedBatches
from vemdiffuse_pipe.training.objectives.draws import Draws
from vemdiffuse_pipe.training.objectives.gaps import Estimation, PlaneDiffusion
from vemdiffuse_pipe.training.prefetch import Prefetched
from vemdiffuse_pipe.training.recipes import FACTORS, Recipe
from vemdiffuse_pipe.training.state import TrainingState

if TYPE_CHECKING:
    from vemdiffuse_pipe.volume import Voxels

SCALE = 0.4  # deviation of (truth - linear), in deviations of the grey levels
END_SHARE = {"estimator": 0.33, "sampler": 0.0}  # of batches with planes that lie at sections
OBJECTIVES = {"estimator": Estimation, "sampler": PlaneDiffusion}
HELD_BACK = [(5, "dropped"), (8, "dropped"), (4, "averaged"), (4, "thick")]


def main() -> None:
    """Train, and write what happens to FOLDER/log.jsonl."""
    options = _options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.folder.mkdir(parents=True, exist_ok=True)
    network = on_device(new_network(options.network, KINDS[options.network].sizes()), options.device)
    state = TrainingState(network, options.lr)
    state.restore(options.folder / "state.safetensors")
    volume_a, *others = (tifffile.imread(options.data / f"volume_{name}_raw.tif") for name in "abc")
    batches = DegradedBatches(
        [volume_a[:180], *others],
        Recipe(without=frozenset(options.without)),
        batch_size=options.batch,
        seed=options.seed,
        end_share=END_SHARE[options.network],
    )
    train(state, batches, volume_a[180:200, 132:388, 132:388], options)


def train(
    state: TrainingState, batches: DegradedBatches, held_back: Voxels, options: argparse.Namespace
) -> None:
    """All steps that are left."""
    learn = OBJECTIVES[options.network](SCALE)
    balanced = replace(learn, is_balanced=True) if isinstance(learn, Estimation) else learn
    began = saved = time.monotonic()
    before = state.progress.elapsed_s
    steps, losses = range(state.progress.step, options.steps), list[torch.Tensor]()
    with Prefetched(batches.batch, steps) as made:
        for step, batch in zip(steps, made, strict=True):
            draws = Draws.of(options.seed, step, options.batch)
            objective = balanced if step >= options.balanced_from else learn
            loss = objective(state.network, batch.to(options.device), draws)
            state.learn(loss, lr_at(step, options), 1.0, min(0.999, (step + 1) / (step + 10)))
            losses.append(loss.detach())
            done, now = step + 1, time.monotonic()
            state.progress = replace(state.progress, step=done, elapsed_s=before + now - began)
            if done % 25 == 0:
                log(options, step=done, loss=float(torch.stack(losses).mean()), seconds=round(now - began))
                losses.clear()
            if done % options.validate_every == 0 or done == options.steps:
                log(options, step=done, scores=validated(state, held_back, options))
            if now - saved > options.save_s or done == options.steps:
                state.save(options.folder / "state.safetensors", {"network": options.network})
                saved = now


def lr_at(step: int, options: argparse.Namespace) -> float:
    """Warm-up, constant, and over a last share of the steps a cosine to zero."""
    begin = options.steps * (1 - options.decay)
    done = max(0.0, (step - begin) / (options.steps - begin))
    return float(options.lr * min(1.0, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * done)))


def log(options: argparse.Namespace, **values: object) -> None:
    """One line."""
    with (options.folder / "log.jsonl").open("a") as file:
        print(json.dumps(values), file=file)


def validated(
    state: TrainingState, held_back: Voxels, options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Figures of the averaged weights on what is held back, by ratio and way of making sections."""
    path, kind, scores = options.folder / "average.safetensors", options.network, {}
    card = ModelCard(kind, kind, "", False, False, 0, 0, 1, 2, 12, steps=8, residual_scale=SCALE)
    save_checkpoint(path, state.average, card)  # type: ignore[arg-type]
    for r, degradation in HELD_BACK:
        degraded = degrade(held_back, r, degradation)  # type: ignore[arg-type]
        thin = degraded.is_thin and degraded.section_planes > 1
        table = ModelTable(
            name=str(path), ratio=r, samples=1 if kind == "sampler" else None, precision="bfloat16",
            plane_thickness="thin" if thin else "section",
        )  # fmt: skip
        run = RunTable(device=options.device, threads=options.threads)
        made = reconstruct_in_memory(
            degraded.sections, table, run, section_planes=degraded.section_planes
        ).arrays["em"]
        report = evaluate(made, degraded.truth, planes=degraded.generated)
        names = ("psnr", "hf_x", "hf_y", "flicker") if kind == "sampler" else ("psnr", "fsim_xz")
        scores[f"{degradation} {r}"] = {name: round(getattr(report, name), 3) for name in names}
    return scores


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="the folder fib25")
    parser.add_argument("folder", type=Path, help="for the state and the log")
    parser.add_argument("--network", choices=OBJECTIVES, required=True)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--decay", type=float, default=0.3, help="share of steps over which the rate falls")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--balanced-from", type=int, default=0, help="estimator: step from which gaps count alike"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--validate-every", type=int, default=400)
    parser.add_argument("--save-s", type=float, default=240, help="seconds between states")
    parser.add_argument("--without", nargs="*", choices=FACTORS, default=[], help="factors to leave out")
    return parser.parse_args()


if __name__ == "__main__":
    main()
