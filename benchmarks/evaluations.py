"""How many evaluations a sample needs: the mean and the spread of K samples against a long ancestral chain.

    python benchmarks/evaluations.py DATA CHECKPOINT [--ratio 5] [--samples 8] [--chain 200]

DATA holds volume_a_raw.tif; the part is planes 220 to 240, the middle 128 x 128 px. The chain is
`ancestral-rescaled`, which is faithful to the noise levels of the training whatever its length. Samples are
independent; a pair's noise would cancel in the mean.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from figures import commit, device

from vemdiffuse_pipe.comparison.compare import read_truth
from vemdiffuse_pipe.comparison.file import TruthTable
from vemdiffuse_pipe.comparison.in_memory import reconstruct_in_memory
from vemdiffuse_pipe.config import ModelTable, SamplerName
from vemdiffuse_pipe.evaluation import evaluate
from vemdiffuse_pipe.evaluation.degradation import Degraded, degrade
from vemdiffuse_pipe.geometry.grey import to_grey

COLUMNS = (
    "sampler",
    "evaluations",
    "PSNR",
    "FSIM xz",
    "FSIM xy",
    "spread",
    "of the chain's",
    "K = 1",
    "HF x",
    "s",
)


@dataclass(frozen=True, slots=True)
class Drawn:
    """What K samples say. `spread`: grey levels; `one`: PSNR and HF x of a single sample."""

    psnr: float
    fsim_xz: float
    fsim_xy: float
    spread: float
    one: tuple[float, float]
    seconds: float


def drawn(degraded: Degraded, model: str, sampler: SamplerName, steps: int, n: int) -> Drawn:
    """`n` independent samples, each with a seed of its own."""
    began = time.perf_counter()
    samples = [
        reconstruct_in_memory(
            degraded.sections,
            ModelTable(
                name=model,
                ratio=degraded.r,
                samples=1,
                sampler=sampler,
                steps=steps,
                seed=seed,
                precision="bfloat16",
            ),
        ).arrays["em"]
        for seed in range(n)
    ]
    took = time.perf_counter() - began
    every = np.stack(samples).astype(np.float32)
    mean = evaluate(to_grey(every.mean(axis=0)), degraded.truth, planes=degraded.generated)
    first = evaluate(samples[0], degraded.truth, planes=degraded.generated)
    spread = every[:, degraded.generated].std(axis=0, ddof=1).mean()
    return Drawn(mean.psnr, mean.fsim_xz, mean.fsim_xy, float(spread), (first.psnr, first.hf_x), took)


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("checkpoint")
@click.option("--ratio", default=5, show_default=True)
@click.option("--samples", default=8, show_default=True)
@click.option("--chain", default=200, show_default=True, help="Steps of the ancestral chain.")
@click.option("--planes", type=(int, int), default=(220, 241), show_default=True)
@click.option("--middle", default=128, show_default=True, help="px")
@click.option("--sampler", "samplers", default=("dpmpp-2m", "heun"), multiple=True, show_default=True)
@click.option("--steps", "counts", default=(4, 6, 8, 10, 20, 35), multiple=True, show_default=True)
def main(
    data: Path,
    checkpoint: str,
    ratio: int,
    samples: int,
    chain: int,
    planes: tuple[int, int],
    middle: int,
    samplers: tuple[SamplerName, ...],
    counts: tuple[int, ...],
) -> None:
    """Print a line for each sampler and number of evaluations; the chain first."""
    part = TruthTable(
        url=str(data / "volume_a_raw.tif"), voxel_size_nm=(10, 10, 10), planes=planes, middle_px=middle
    )
    degraded = degrade(read_truth(part), ratio, "dropped")
    click.echo(f"{device()}, commit {commit()}\n")
    click.echo(f"| {' | '.join(COLUMNS)} |\n{'| --- ' * len(COLUMNS)}|")
    ways = [("ancestral-rescaled", chain), *((sampler, n) for sampler in samplers for n in counts)]
    spread = 0.0
    for sampler, steps in ways:
        d = drawn(degraded, checkpoint, sampler, steps, samples)
        spread = spread or d.spread
        cells = (f"{d.psnr:.2f}", f"{d.fsim_xz:.4f}", f"{d.fsim_xy:.4f}", f"{d.spread:.2f}")
        rest = (f"{d.spread / spread:.3f}", f"{d.one[0]:.2f}", f"{d.one[1]:.2f}", f"{d.seconds:.0f}")
        click.echo(f"| {sampler} | {steps} | {' | '.join((*cells, *rest))} |")


if __name__ == "__main__":
    main()
