"""What benchmarks/gpu_train.sh does in Python: pack crops of FIB-25; train a network of the default.

    python gpu_train.py pack FOLDER DATA                                     data.npz in FOLDER
    python gpu_train.py run FOLDER RESULTS --minutes 5 --network sampler     NETWORK.safetensors, log.jsonl

Objective, batches and state are those of benchmarks/train_default.py, and the volumes are crops of the parts
that it learns from. The rate falls over the last third of the minutes, of all runs together. Batches are made
by as many processes as there are cores but one. RESULTS/state.safetensors is written once a minute; to run
again resumes it, else FOLDER/start.safetensors is begun from, if it is there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from vemdiffuse_pipe.models.card import ModelCard
from vemdiffuse_pipe.models.checkpoint import new_network, on_device, save_checkpoint
from vemdiffuse_pipe.models.kinds import KINDS
from vemdiffuse_pipe.training.degraded import DegradedBatches, DegradedGaps
from vemdiffuse_pipe.training.objectives.draws import Draws
from vemdiffuse_pipe.training.objectives.gaps import Estimation, PlaneDiffusion
from vemdiffuse_pipe.training.recipes import Recipe
from vemdiffuse_pipe.training.state import TrainingState

SCALE, SEED, LR = 0.4, 0, 1e-3  # as of benchmarks/train_default.py
END_SHARE = {"estimator": 0.33, "sampler": 0.0}
OBJECTIVES = {"estimator": Estimation, "sampler": PlaneDiffusion}
SECTIONS, WIDTH = 180, {"a": 176, "b": 220, "c": 190}  # of the training part; what fits into the pack
DECAY, WARM_UP, SAVE_S, LOG_EVERY = 0.33, 200, 60.0, 50
DEVICE = os.environ.get("VEMDIFFUSE_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
IS_GPU = DEVICE.startswith("cuda")


def main() -> None:
    """Do what is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing, running = commands.add_parser("pack"), commands.add_parser("run")
    packing.add_argument("folder", type=Path)
    packing.add_argument("data", type=Path)
    running.add_argument("folder", type=Path)
    running.add_argument("results", type=Path)
    running.add_argument("--minutes", type=float, required=True)
    running.add_argument("--network", choices=OBJECTIVES, required=True)
    running.add_argument("--batch", type=int, default=64 if IS_GPU else 4)
    running.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    options = parser.parse_args()
    if options.command == "pack":
        pack(options.folder, options.data)
    else:
        run(options)


def pack(folder: Path, data: Path) -> None:
    """Write crops of the volumes that are learnt from."""
    import tifffile

    volumes = {name: tifffile.imread(data / f"volume_{name}_raw.tif") for name in WIDTH}
    volumes["a"] = volumes["a"][:SECTIONS]
    np.savez_compressed(
        folder / "data.npz", **{name: volume[..., : WIDTH[name]] for name, volume in volumes.items()}
    )


def run(options: argparse.Namespace) -> None:
    """Train for the minutes that were given, and write the averaged weights."""
    ends = time.monotonic() + 60 * options.minutes
    options.results.mkdir(parents=True, exist_ok=True)
    with np.load(options.folder / "data.npz") as data:
        volumes = [data[name] for name in WIDTH]
    batches = DegradedBatches(
        volumes, Recipe(), batch_size=options.batch, seed=SEED, end_share=END_SHARE[options.network]
    )
    with processes(batches, options.processes) as pool:
        pool.submit(os.getpid).result()  # processes are forked before a GPU is touched
        network = on_device(new_network(options.network, KINDS[options.network].sizes()), DEVICE)
        begin_from(network, options.folder / "start.safetensors", options.network)
        state = TrainingState(network, LR)
        state.restore(options.results / "state.safetensors")
        train(state, made(pool, state.progress.step, 2 * options.processes), ends, options)


def begin_from(network: nn.Module, path: Path, name: str) -> None:
    """Load weights where there are any: a checkpoint of this network, or of both."""
    if path.exists():
        tensors = {key.removeprefix(f"{name}."): tensor.float() for key, tensor in load_file(path).items()}
        network.load_state_dict({key: tensors[key] for key in network.state_dict()})


def train(
    state: TrainingState, batches: Iterator[DegradedGaps], ends: float, options: argparse.Namespace
) -> None:
    """Steps until time is over; then the rate has fallen to zero."""
    learn, losses = OBJECTIVES[options.network](SCALE), list[torch.Tensor]()
    began = saved = time.monotonic()
    before, waited = state.progress.elapsed_s, 0.0
    total = before + ends - began
    while (now := time.monotonic()) < ends:
        step = state.progress.step
        batch = next(batches)
        waited += time.monotonic() - now
        loss = learn(state.network, batch.to(DEVICE), Draws.of(SEED, step, options.batch))
        done_share = (before + now - began) / total
        state.learn(loss, rate(step, done_share), 1.0, min(0.999, (step + 1) / (step + 10)))
        losses.append(loss.detach())
        state.progress = replace(state.progress, step=step + 1, elapsed_s=before + time.monotonic() - began)
        if (step + 1) % LOG_EVERY == 0:
            log(options, step=step + 1, loss=float(torch.stack(losses).mean()), waited_s=round(waited, 1))
            losses.clear()
        if now - saved > SAVE_S:
            state.save(options.results / "state.safetensors", {"network": options.network})
            saved = now
    state.save(options.results / "state.safetensors", {"network": options.network})
    name = options.network
    card = ModelCard(name, name, "", False, False, 0, 0, 1, 2, 12, steps=8, residual_scale=SCALE)
    save_checkpoint(options.results / f"{name}.safetensors", state.average, card)  # type: ignore[arg-type]
    log(options, step=state.progress.step, minutes=state.progress.elapsed_s / 60, device=device_name())


def rate(step: int, done_share: float) -> float:
    """Warm-up, constant, and over the last share of the time a cosine to zero."""
    falling = max(0.0, (done_share - (1 - DECAY)) / DECAY)
    return LR * min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * min(1.0, falling)))


def processes(batches: DegradedBatches, n: int) -> ProcessPoolExecutor:
    """Processes that know the volumes."""
    return ProcessPoolExecutor(n, get_context("fork"), initializer=_know, initargs=(batches,))


_KNOWN: list[DegradedBatches] = []


def _know(batches: DegradedBatches) -> None:
    torch.set_num_threads(1)
    _KNOWN.append(batches)


def _make(step: int) -> DegradedGaps:
    return _KNOWN[0].batch(step)


def made(pool: ProcessPoolExecutor, first: int, ahead: int) -> Iterator[DegradedGaps]:
    """The batches of step `first` and on, in order."""
    waiting: deque[Future[DegradedGaps]] = deque()
    for step in count(first):
        waiting.append(pool.submit(_make, step))
        if len(waiting) > ahead:
            yield waiting.popleft().result()


def log(options: argparse.Namespace, **values: object) -> None:
    """One line."""
    with (options.results / "log.jsonl").open("a") as file:
        print(json.dumps({"network": options.network, **values}), file=file)


def device_name() -> str:
    """The GPU by name, or 'cpu'."""
    return torch.cuda.get_device_name() if IS_GPU else "cpu"


if __name__ == "__main__":
    main()
