"""Restoration of sections on synthetic pairs of FIB-25: train a small network, hold it against its input.

    python benchmarks/restoration.py DATA FOLDER --task denoise --steps 1500

DATA holds volume_a_raw.tif, volume_b_raw.tif and volume_c_raw.tif (10 nm). Pairs: Poisson-Gaussian noise
(`denoise`) or means of 2 x 2 px (`superres`). Trained on b, c and sections z < 200 of a; the table is of
z >= 220 of a, rendered by `vemdiffuse run`. Run again with the same FOLDER, training goes on where it was.
`--sections` trains on every eighth section of a alone; `--warped`, on the same ones, whose raw images were
turned, stretched and bent, and then registered.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from vemdiffuse_pipe import config
from vemdiffuse_pipe.evaluation import Report, evaluate, render_table
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.running.reconstruct import run
from vemdiffuse_pipe.storage import open_sink
from vemdiffuse_pipe.training.pairs import halved, with_noise
from vemdiffuse_pipe.training.registration import Registration, register
from vemdiffuse_pipe.training.run import train
from vemdiffuse_pipe.training.settings import parse
from vemdiffuse_pipe.volume import Voxels

# Electrons for white; grey levels: about 27 grey levels of noise on 27 of contrast.
PEAK, READ_STD = 40.0, 8.0
SIZES = {"channels": [32, 64], "n_blocks": 2, "n_basis": 4, "n_embedding": 64}
DEPTH, SIZE = 21, 384
INNER = 60  # px at the edges, which a warped image does not hold

Table = dict[str, object]


def degraded(clean: Voxels, task: str, seed: int) -> Voxels:
    return with_noise(clean, peak=PEAK, read_std=READ_STD, seed=seed) if task == "denoise" else halved(clean)


def sources(data: Path) -> list[Table]:
    """Clean volumes; what is raw is made of them as they are read."""
    urls = {name: str(data / f"volume_{name}_raw.tif") for name in "abc"}
    made: list[Table] = [{"url": url, "voxel_size_nm": [10, 10, 10]} for url in urls.values()]
    made[0]["region"] = [[0, 0, 0], [200, 520, 520]]
    return made


def few_sections(data: Path, folder: Path, task: str, *, is_warped: bool) -> list[Table]:
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
    inner = {
        "clean": clean[:, INNER:-INNER, INNER:-INNER],
        "raw": raw[:, rim:-rim, rim:-rim],
    }
    for name, volume in inner.items():
        tifffile.imwrite(folder / f"{task}_train_{name}.tif", volume, photometric="minisblack")
    url, raw_url = (str(folder / f"{task}_train_{name}.tif") for name in inner)
    return [{"url": url, "raw": raw_url, "voxel_size_nm": [80, 10, 10], "bad_sections": "keep"}]


def moved(section: Voxels, rng: np.random.Generator) -> Voxels:
    """A section scanned askew: turned by 3 degrees, stretched by 2 %, shifted, and bent by up to 4 px."""
    n = section.shape[0]
    field = np.stack([ndimage.gaussian_filter(rng.standard_normal((n, n)), 60, mode="wrap") for _ in "yx"])
    turn = 1.02 * np.array([[np.cos(0.05), -np.sin(0.05)], [np.sin(0.05), np.cos(0.05)]])
    places = np.indices((n, n)) - n / 2 + 4.0 * field / np.abs(field).max()
    places = np.einsum("ij,jyx->iyx", turn, places) + n / 2 + rng.uniform(-5, 5, (2, 1, 1))
    return to_grey(ndimage.map_coordinates(section.astype(np.float32), places, order=3, mode="reflect"))


def misaligned(found: Registration) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return found.before_px, found.residual_px


def trained(learnt_from: list[Table], folder: Path, task: str, steps: int) -> Path:
    """The checkpoint of a network trained for `steps`, of 8 crops of 64 px each."""
    made_noise = {"peak": PEAK, "read_std": READ_STD} if task == "denoise" else {}
    file = parse(
        {
            "source": learnt_from,
            "data": {"crop_px": 64, **({} if "raw" in learnt_from[0] else made_noise)},
            "model": {"kind": "lean", "task": task, **SIZES},
            "train": {"steps": steps, "batch_size": 8, "warmup": 100, "ema": 0.995},
            "output": {"folder": str(folder / f"{task}_{steps}"), "name": task},
        }
    )
    checkpoint = train(file).checkpoint
    assert checkpoint is not None
    return checkpoint


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
@click.option("--depth", default=DEPTH, show_default=True, help="Sections of the test part.")
@click.option("--size", default=SIZE, show_default=True, help="Side of the crop, px.")
@click.option("--warped", "learnt_from", flag_value="warped", help="Raw images were warped, and registered.")
@click.option("--sections", "learnt_from", flag_value="sections", help="The same sections as they were.")
def main(
    data: Path, folder: Path, task: str, steps: int, depth: int, size: int, learnt_from: str | None
) -> None:
    """Train, restore the test part through the pipeline, and print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    is_warped = learnt_from == "warped"
    of = few_sections(data, folder, task, is_warped=is_warped) if learnt_from else sources(data)
    checkpoint = trained(of, folder, task, steps)
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
