"""Train the embedded default model on the FIB-25 volumes (the training part only).

    python benchmarks/train_default.py DATA FOLDER --steps 10000

DATA holds volume_a_raw.tif, volume_b_raw.tif and volume_c_raw.tif (10 nm isotropic). Trained on: b, c
and sections z < 200 of a. Never on sections from 200 on: 220 and above are the test part. Run again
with the same FOLDER, it goes on where it was. `export_default.py` makes the checkpoint of the result.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import tifffile
import torch

from vemdiffuse_pipe.models.lean import LeanConfig, LeanNetwork
from vemdiffuse_pipe.training.gaps import GapSampler, TrainingVolume
from vemdiffuse_pipe.training.loop import Schedule, train

RATIOS = {5: 0.35} | dict.fromkeys((2, 3, 4, 6, 7, 8, 9, 10, 11, 12), 0.065)
RESIDUAL_SCALE = 0.36  # deviation of (truth - linear) at r = 5, in deviations of the grey levels


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--steps", default=10000, show_default=True)
@click.option("--batch-size", default=16, show_default=True)
@click.option("--crop", default=64, show_default=True)
@click.option("--lr", default=1e-3, show_default=True)
@click.option("--device", default="cpu", show_default=True)
def main(data: Path, folder: Path, steps: int, batch_size: int, crop: int, lr: float, device: str) -> None:
    """Train, logging a line every 50 steps to FOLDER/log.jsonl."""
    raw = [tifffile.imread(data / f"volume_{name}_raw.tif") for name in "abc"]
    volumes = [TrainingVolume.of(v) for v in (raw[0][:200], *raw[1:])]
    sampler = GapSampler(volumes, RATIOS, crop_px=crop, batch_size=batch_size)
    folder.mkdir(parents=True, exist_ok=True)
    losses: list[float] = []

    def log(record: dict[str, float]) -> None:
        losses.append(record["loss"])
        if len(losses) == 50:
            with (folder / "log.jsonl").open("a") as file:
                file.write(json.dumps({**record, "loss": sum(losses) / 50}) + "\n")
            losses.clear()

    torch.manual_seed(0)
    network = LeanNetwork(LeanConfig())
    schedule = Schedule(n_steps=steps, lr=lr)
    train(
        network,
        sampler,
        schedule,
        residual_scale=RESIDUAL_SCALE,
        folder=folder,
        device=torch.device(device),
        log=log,
    )


if __name__ == "__main__":
    main()
