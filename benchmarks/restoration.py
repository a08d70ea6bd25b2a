"""Restoration of sections on synthetic pairs of FIB-25: train a small network, hold it against its input.

    python benchmarks/restoration.py DATA FOLDER --task denoise --steps 2000

DATA holds volume_a_raw.tif, volume_b_raw.tif and volume_c_raw.tif (10 nm). Pairs: Poisson-Gaussian noise
(`denoise`) or means of 2 x 2 px (`superres`). Trained on b, c and sections z < 200 of a; the table is of
z >= 220 of a, rendered by `vemdiffuse run`. Run again with the same FOLDER, training goes on where it was.
`--warped` trains on every eighth section of a alone, whose raw images were turned, stretched and bent, and
then registered; `--sections`, on the same ones as they were.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from vemdiffuse_pipe import config
from vemdiffuse_pipe.evaluation import Report, evaluate, render_table
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.models.card import ModelCard
from vemdiffuse_pipe.models.checkpoint import save_checkpoint
from vemdiffuse_pipe.models.lean import LeanConfig, LeanNetwork
from vemdiffuse_pipe.running.reconstruct import run
from vemdiffuse_pipe.storage import open_sink
from vemdiffuse_pipe.training.loop import Course, Record, train
from vemdiffuse_pipe.training.objectives.residual import ResidualDiffusion
from vemdiffuse_pipe.training.pairs import PairSampler, PairVolume, halved, with_noise
from vemdiffuse_pipe.training.processes import Crew
from vemdiffuse_pipe.training.registration import Registration, register
from vemdiffuse_pipe.training.settings import TrainTable
from vemdiffuse_pipe.volume import Voxels

PEAK, READ_STD = (
    40.0,
    8.0,
)  # electrons for white; grey levels: about 27 grey levels of noise on 27 of contrast
CONFIG = LeanConfig(channels=(32, 64), n_blocks=2, n_basis=4, n_embedding=64)
DEPTH, SIZE = 21, 384
INNER = 60  # px at the edges, which a warped image does not hold


def degraded(clean: Voxels, task: str, seed: int) -> Voxels:
    return with_noise(clean, peak=PEAK, read_std=READ_STD, seed=seed) if task == "denoise" else halved(clean)


def pairs(data: Path, task: str) -> list[PairVolume]:
    raw = [tifffile.imread(data / f"volume_{name}_raw.tif") for name in "abc"]
    return [PairVolume.of(degraded(v, task, i), v) for i, v in enumerate((raw[0][:200], *raw[1:]))]


def moved(section: Voxels, rng: np.random.Generator) -> Voxels:
    """A section scanned askew: turned by 3 degrees, stretched by 2 %, shifted, and bent by up to 4 px."""
    n = section.shape[0]
    field = np.stack([ndimage.gaussian_filter(rng.standard_normal((n, n)), 60, mode="wrap") for _ in "yx"])
    turn = 1.02 * np.array([[np.cos(0.05), -np.sin(0.05)], [np.sin(0.05), np.cos(0.05)]])
    places = np.indices((n, n)) - n / 2 + 4.0 * field / np.abs(field).max()
    places = np.einsum("ij,jyx->iyx", turn, places) + n / 2 + rng.uniform(-5, 5, (2, 1, 1))
    return to_grey(ndimage.map_coordinates(section.astype(np.float32), places, order=3, mode="reflect"))


def few_sections(data: Path, task: str, *, is_warped: bool) -> PairVolume:
    """Every eighth section of volume a and its raw image, as it was, or warped and registered."""
    clean = tifffile.imread(data / "volume_a_raw.tif", key=range(0, 200, 8))
    raw, scale = degraded(clean, task, 0), 2 if task == "superres" else 1
    if is_warped:
        rng = np.random.default_rng(0)
        askew = degraded(np.stack([moved(section, rng) for section in clean]), task, 0)
        found = [register(a, b, scale=scale) for a, b in zip(askew, clean, strict=True)]
        before, after = (np.median(np.concatenate(px)) for px in zip(*map(misaligned, found), strict=True))
        click.echo(f"misaligned by {before:.2f} px, registered to {after:.2f} px", err=True)
        raw = np.stack([one.image for one in found])
    rim = INNER // scale
    return PairVolume.of(raw[:, rim:-rim, rim:-rim], clean[:, INNER:-INNER, INNER:-INNER])


def misaligned(found: Registration) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return found.before_px, found.residual_px


def residual_scale(volumes: list[PairVolume], task: str) -> float:
    """Deviation of (clean - what the network is given), in deviations of the raw grey levels."""
    batch = PairSampler(volumes, task, batch_size=64, seed=99).batch(0)
    return round(float((batch.targets - batch.sections[:, :1]).std()), 3)


class Keeper:
    """Writes the journal, and has the average of the last step; nothing is held back to validate on."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self.average = LeanNetwork(CONFIG)

    def begin(self, step: int) -> None:
        """Say where training goes on."""
        click.echo(f"from step {step}", err=True)

    def hear(self, record: Record) -> None:
        """Write a line."""
        with self.journal.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def validate(self, average: nn.Module, step: int) -> float | None:
        """No score."""
        return None

    def keep(self, average: nn.Module, step: int) -> None:
        """Take over the average."""
        self.average.load_state_dict(average.state_dict())

    def is_interrupted(self) -> bool:
        """Never."""
        return False


def trained(volumes: list[PairVolume], folder: Path, task: str, steps: int, lr: float) -> Path:
    """The checkpoint of a network trained for `steps`."""
    path = folder / f"{task}.safetensors"
    scale = residual_scale(volumes, task)
    sampler = PairSampler(volumes, task, crop_px=64, batch_size=8)
    torch.manual_seed(0)
    table = TrainTable(steps=steps, batch_size=8, warmup=100, ema=0.995, validate_every=steps)
    keeper = Keeper(folder / f"{task}.jsonl")
    course = Course(
        LeanNetwork(CONFIG),
        ResidualDiffusion(scale),
        sampler,
        table,
        folder / f"{task}.state",
        {"task": task, "residual_scale": scale},
        lr,
    )
    began = time.process_time()
    train(course, Crew(torch.device("cpu")), keeper)
    training = f"{steps} steps of 8 crops of 64 px, {time.process_time() - began:.0f} s of processor time"
    click.echo(f"{task}: {training}, residual_scale {scale}", err=True)
    card = ModelCard(
        name=f"lean {task}",
        kind="lean",
        sha256="",
        is_stochastic=True,
        is_tile_exact=True,
        reach_sections=0,
        context_px=0,
        multiple_px=1,
        min_ratio=2,
        max_ratio=2,
        samples=2,
        steps=8,
        residual_scale=scale,
        task=task,
        trained_on="FIB-25, synthetic pairs; Takemura et al., PNAS 2015",
        training=training,
    )
    save_checkpoint(path, keeper.average, card)
    return path


def restored(raw: Path, out: Path, voxel_size_nm: list[float], **model: object) -> Voxels:
    """What `vemdiffuse run` makes of a volume."""
    run_file = config.parse(
        {
            "source": {"url": str(raw), "voxel_size_nm": voxel_size_nm, "bad_sections": "keep"},
            "output": {"url": str(out)},
            "model": model,
            "run": {"threads": 2},
        }
    )
    assert run(run_file).exit_code == 0
    sink = open_sink(out)
    return sink.read("em", Box.of_shape(sink.spec.shape))


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--task", type=click.Choice(["denoise", "superres"]), default="denoise", show_default=True)
@click.option("--steps", default=2000, show_default=True)
@click.option("--lr", default=1e-3, show_default=True)
@click.option("--depth", default=DEPTH, show_default=True, help="Sections of the test part.")
@click.option("--size", default=SIZE, show_default=True, help="Side of the crop, px.")
@click.option("--warped", "learnt_from", flag_value="warped", help="Raw images were warped, and registered.")
@click.option("--sections", "learnt_from", flag_value="sections", help="The same sections as they were.")
def main(
    data: Path, folder: Path, task: str, steps: int, lr: float, depth: int, size: int, learnt_from: str | None
) -> None:
    """Train, restore the test part through the pipeline, and print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    is_warped = learnt_from == "warped"
    volumes = [few_sections(data, task, is_warped=is_warped)] if learnt_from else pairs(data, task)
    checkpoint = trained(volumes, folder, task, steps, lr)
    start = (520 - size) // 2
    truth = tifffile.imread(data / "volume_a_raw.tif", key=range(220, 220 + depth))
    truth = np.ascontiguousarray(truth[:, start : start + size, start : start + size])
    raw = degraded(truth, task, 7)
    stack = folder / f"{task}_raw.tif"
    tifffile.imwrite(stack, raw, photometric="minisblack")
    tifffile.imwrite(folder / f"{task}_truth.tif", truth, photometric="minisblack")
    pixel = 10.0 if task == "denoise" else 20.0
    rows: dict[str, Report] = {}

    def add(row: str, **model: object) -> None:
        out = folder / f"{task}_{len(rows)}_{steps}_{depth}_{size}.zarr"
        rows[row] = evaluate(restored(stack, out, [10.0, pixel, pixel], task=task, **model), truth)
        click.echo(row, err=True)

    if task == "denoise":
        rows["the noisy input"] = evaluate(raw, truth)
        add("gaussian", name="gaussian")
    else:
        rows["the input, each pixel four times"] = evaluate(raw.repeat(2, 1).repeat(2, 2), truth)
        add("linear", name="linear")
        add("cubic", name="cubic")
    network = {"name": str(checkpoint), "precision": "bfloat16"}
    add("network, one pass", **network, steps=1, samples=1)
    add("network, one sample", **network, samples=1)
    add("network, mean of a pair", **network, samples=2)
    click.echo(render_table(rows))


if __name__ == "__main__":
    main()
