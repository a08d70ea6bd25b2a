"""How good the default model is: FIB-25's test part, sections dropped, generated planes only.

    python benchmarks/fidelity.py DATA [--ratio 5] [--samples 1 --samples 2 ...] [--model default]

DATA holds volume_a_raw.tif; the test part is z >= 220, which no model was trained on. `steps 1` is the
one-pass twin: the same weights, one evaluation, the best single estimate. A perfect sampler's mean of K
independent samples lies 10 log10(1 + 1/K) dB below the best estimate; the last lines hold the model
against that law. The pipeline draws antithetic pairs, whose mean comes nearer.
"""

from __future__ import annotations

import math
from pathlib import Path

import click
import numpy as np
import tifffile

from vemdiffuse_pipe.config import parse
from vemdiffuse_pipe.evaluation import Report, evaluate, render_table
from vemdiffuse_pipe.geometry.frame import Frame, exact_nm
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.models.card import find_card
from vemdiffuse_pipe.models.checkpoint import load_model
from vemdiffuse_pipe.plan.plan import make_plan
from vemdiffuse_pipe.render.block import Hardware, render_block
from vemdiffuse_pipe.volume import VolumeSpec, Voxels


def reconstruct_in_memory(sections: Voxels, ratio: int, n_threads: int, **model: object) -> Voxels:
    """The planes of a stack of sections at `ratio`: uint8, zyx."""
    inside = sections[(sections > 0) & (sections < 255)]
    contrast = [float(inside.mean()), float(inside.std())]
    run_file = parse(
        {
            "source": {"url": "memory", "contrast": contrast},
            "output": {"url": "memory"},
            "model": {"ratio": ratio, **model},
        }
    )
    frame = Frame(sections.shape, exact_nm([10 * ratio, 10, 10]))
    spec = VolumeSpec("memory", "array", frame, "uint8", (1, 64, 64), (1, 64, 64))
    plan = make_plan(run_file, spec, find_card(run_file.model.name))
    sampling = plan.sampling
    filler = load_model(
        run_file.model.name, steps=sampling.steps, contrast=plan.contrast, precision=sampling.precision
    )
    return render_block(plan, filler, sections, plan.output.box, Hardware(n_threads=n_threads))["em"]


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--ratio", default=5, show_default=True)
@click.option("--model", default="default", show_default=True)
@click.option("--steps", default=8, show_default=True)
@click.option("--samples", default=(1, 2, 4, 8), multiple=True, show_default=True)
@click.option("--size", default=192, show_default=True, help="Side of the crop, px.")
@click.option("--depth", default=61, show_default=True, help="Planes of the crop.")
@click.option("--precision", default="bfloat16", show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(
    data: Path,
    ratio: int,
    model: str,
    steps: int,
    samples: tuple[int, ...],
    size: int,
    depth: int,
    precision: str,
    threads: int,
) -> None:
    """Print the table of the test part."""
    depth = (depth - 1) // ratio * ratio + 1
    truth = _test_part(data, depth, size)
    planes = [p for p in range(depth) if p % ratio]
    diffusion = {"name": model, "steps": steps, "precision": precision}
    rows: dict[str, Report] = {}

    def draw(**options: object) -> Voxels:
        return reconstruct_in_memory(truth[::ratio], ratio, threads, **options)

    def add(row: str, prediction: Voxels) -> None:
        rows[row] = evaluate(prediction, truth, planes=planes)
        click.echo(row, err=True)

    add("linear", draw(name="linear"))
    add("cubic", draw(name="cubic"))
    add("one-pass twin", draw(**{**diffusion, "steps": 1}, samples=1))
    total = np.zeros(truth.shape)
    for seed in range(max(samples)):
        total += draw(**diffusion, samples=1, seed=seed)
        if seed + 1 in samples:
            add(f"{seed + 1} independent", to_grey(total / (seed + 1)))
    for k in (k for k in samples if k > 1):
        add(f"K = {k}, in pairs", draw(**diffusion, samples=k))
    click.echo(render_table(rows))
    click.echo(f"\n{_law(rows, samples)}")


def _test_part(data: Path, depth: int, size: int) -> Voxels:
    """The middle of the test part in y and x, from z = 220 on."""
    start = (520 - size) // 2
    volume: Voxels = tifffile.imread(data / "volume_a_raw.tif", key=range(220, 220 + depth))
    return volume[:, start : start + size, start : start + size]


def _law(rows: dict[str, Report], samples: tuple[int, ...]) -> str:
    """Each mean of independent samples against the one-pass twin minus 10 log10(1 + 1/K)."""
    laws = {k: rows["one-pass twin"].psnr - 10 * math.log10(1 + 1 / k) for k in samples}
    return "\n".join(
        f"K = {k}: {rows[f'{k} independent'].psnr:.2f} dB, the law gives {law:.2f}" for k, law in laws.items()
    )


if __name__ == "__main__":
    main()
