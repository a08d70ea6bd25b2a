"""Noise along z within a gap: independent, smooth or shared, and what each does to samples and pairs.

    python benchmarks/z_noise.py DATA [--ratio 5] [--steps 8]

DATA holds volume_a_raw.tif; the part is the one of workflows/compare_fib25.toml. The planes of a gap get
L times independent noise, where L L' is the correlation between planes: 1 for a plane and itself, so that
each plane's noise stays standard normal; rho ** |i - j| between planes i and j (rho = 0: independent, 1:
shared). It is a function of the voxel and its gap, as the package's noise is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from vemdiffuse_pipe.comparison.compare import read_truth
from vemdiffuse_pipe.comparison.file import TruthTable
from vemdiffuse_pipe.comparison.in_memory import reconstruct_in_memory
from vemdiffuse_pipe.config import ModelTable
from vemdiffuse_pipe.evaluation import evaluate
from vemdiffuse_pipe.evaluation.degradation import degrade
from vemdiffuse_pipe.geometry.grey import UNCERTAINTY_STEP
from vemdiffuse_pipe.models.noise import voxel_noise
from vemdiffuse_pipe.render import block

COLUMNS = (
    "rho",
    "PSNR K = 1",
    "HF x",
    "HF y",
    "HF z",
    "flicker",
    "PSNR pair",
    "flicker",
    "spread",
    "FSIM xz",
)


def mixing(n: int, rho: float) -> Tensor:
    """(n, n) float32 L, whose rows have length 1 and the products rho ** |i - j|."""
    if rho == 1:
        return torch.eye(n)[:1].expand(n, n)
    distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    return torch.from_numpy(np.linalg.cholesky(float(rho) ** distance).astype(np.float32))


@contextmanager
def correlated(rho: float) -> Iterator[None]:
    """Rendering with noise that is correlated along z within a gap."""

    def noise(
        seed: int, sample: int, planes: Tensor, start: tuple[int, int], shape: tuple[int, int], *, step: int
    ) -> Tensor:
        independent = voxel_noise(seed, sample, planes, start, shape, step=step)
        return torch.einsum("ij,jyx->iyx", mixing(len(planes), rho), independent)

    block.voxel_noise = noise
    try:
        yield
    finally:
        block.voxel_noise = voxel_noise


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--ratio", default=5, show_default=True)
@click.option("--steps", default=8, show_default=True)
@click.option("--rho", "rhos", default=(0.0, 0.3, 0.6, 0.9, 1.0), multiple=True, show_default=True)
def main(data: Path, ratio: int, steps: int, rhos: tuple[float, ...]) -> None:
    """Print a line for each correlation."""
    part = TruthTable(url=str(data / "volume_a_raw.tif"), voxel_size_nm=(10, 10, 10), planes=(220, 281))
    degraded = degrade(read_truth(part), ratio, "dropped")
    click.echo(f"| {' | '.join(COLUMNS)} |\n{'| --- ' * len(COLUMNS)}|")
    for rho in rhos:
        with correlated(rho):
            one, pair = (
                reconstruct_in_memory(
                    degraded.sections,
                    ModelTable(ratio=ratio, samples=k, steps=steps, precision="bfloat16"),
                ).arrays
                for k in (1, 2)
            )
        a, b = (evaluate(v["em"], degraded.truth, planes=degraded.generated) for v in (one, pair))
        spread = pair["uncertainty"][degraded.generated].mean() * UNCERTAINTY_STEP
        cells = (a.psnr, a.hf_x, a.hf_y, a.hf_z, a.flicker, b.psnr, b.flicker, spread)
        click.echo(f"| {rho} | {' | '.join(f'{v:.2f}' for v in cells)} | {a.fsim_xz:.4f} |")


if __name__ == "__main__":
    main()
