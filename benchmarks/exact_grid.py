"""A ratio that is not whole where the truth is known: FIB-25 at 50 x 20 x 20 nm, planes every 20 nm.

    python benchmarks/exact_grid.py DATA FOLDER --model linear --model cubic --model default

DATA holds volume_a_raw.tif (10 nm). Pixels are means of 2 x 2, every fifth plane is a section, every second
one is the truth: r is 2.5, and of the planes every fifth falls on a section. FOLDER gets training.tif, the
sections of z < 200, for `vemdiffuse train`; part.tif, those of z 220 to 280; and an output for each model.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import tifffile

from vemdiffuse_pipe.evaluation import Report, evaluate
from vemdiffuse_pipe.geometry.plane_groups import Provenance
from vemdiffuse_pipe.running.reconstruct import reconstruct
from vemdiffuse_pipe.storage import open_sink
from vemdiffuse_pipe.volume import Voxels

SIZE_NM = (50.0, 20.0, 20.0)
TRAINING, PART = slice(0, 200), slice(220, 281)
COLUMNS = ("model", "PSNR", "SSIM", "FSIM xy", "FSIM xz", "FSIM yz", "HF x", "HF y", "HF z", "flicker")


def binned(volume: Voxels) -> Voxels:
    """Means of 2 x 2 px."""
    z, y, x = volume.shape
    means = volume.reshape(z, y // 2, 2, x // 2, 2).mean(axis=(2, 4))
    return np.rint(means).astype(np.uint8)


def rendered(folder: Path, model: str) -> tuple[Voxels, list[int]]:
    """The planes by a model on the exact grid, and which of them were made."""
    output = str(folder / f"{Path(model).stem}.zarr")
    reconstruct(str(folder / "part.tif"), output, voxel_size_nm=SIZE_NM, model=model, grid="exact")
    sink = open_sink(output)
    made = np.flatnonzero(sink.provenance == Provenance.GENERATED)
    return sink.read("em", sink.spec.frame.box), made.tolist()


def cells(model: str, r: Report) -> tuple[str, ...]:
    fsim = (f"{v:.4f}" for v in (r.fsim_xy, r.fsim_xz, r.fsim_yz))
    others = (f"{v:.2f}" for v in (r.hf_x, r.hf_y, r.hf_z, r.flicker))
    return (model, f"{r.psnr:.2f}", f"{r.ssim:.3f}", *fsim, *others)


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--model", "models", default=("linear", "cubic"), multiple=True, show_default=True)
def main(data: Path, folder: Path, models: tuple[str, ...]) -> None:
    """Print a row for each model."""
    folder.mkdir(parents=True, exist_ok=True)
    volume = binned(tifffile.imread(data / "volume_a_raw.tif"))
    for name, part in (("training", TRAINING), ("part", PART)):
        tifffile.imwrite(folder / f"{name}.tif", volume[part][::5], photometric="minisblack")
    truth = volume[PART][::2]
    click.echo(f"| {' | '.join(COLUMNS)} |\n{'| --- ' * len(COLUMNS)}|")
    for model in models:
        planes, made = rendered(folder, model)
        click.echo(f"| {' | '.join(cells(model, evaluate(planes, truth, planes=made)))} |")


if __name__ == "__main__":
    main()
