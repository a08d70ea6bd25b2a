"""Write the checkpoint of a training run: half-precision average weights with their card.

python benchmarks/export_default.py FOLDER OUT.safetensors --training "8000 steps, ..."
"""

from __future__ import annotations

from pathlib import Path

import click
import safetensors
from train_default import RATIOS, RESIDUAL_SCALE

from vemdiffuse_pipe.models.card import ModelCard
from vemdiffuse_pipe.models.checkpoint import save_checkpoint
from vemdiffuse_pipe.models.lean import LeanConfig, LeanNetwork


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--training", default="", help="How it was trained: steps, device, time.")
def main(folder: Path, out: Path, training: str) -> None:
    """Read FOLDER/state.safetensors, write OUT."""
    network = LeanNetwork(LeanConfig())
    with safetensors.safe_open(folder / "state.safetensors", "pt") as file:
        names = [k for k in file.keys() if k.startswith("average.")]  # noqa: SIM118 (not a mapping)
        network.load_state_dict({k.removeprefix("average."): file.get_tensor(k) for k in names})
        step = file.metadata()["step"]
    card = ModelCard(
        name=out.stem,
        kind="lean",
        sha256="",
        is_stochastic=True,
        is_tile_exact=True,
        reach_sections=0,
        context_px=0,
        multiple_px=0,
        min_ratio=min(RATIOS),
        max_ratio=max(RATIOS),
        samples=2,
        steps=8,
        residual_scale=RESIDUAL_SCALE,
        trained_on="FIB-25 (Drosophila medulla, FIB-SEM): training samples 1 and 2, and sections z < 200 "
        "of the validation sample; Takemura et al., PNAS 2015",
        training=training or f"{step} steps",
        voxel_size_nm="10 x 10 x 10, sections dropped along z at ratios 2 to 12",
        licence="weights BSD-3-Clause; the data they were trained on: Creative Commons attribution",
    )
    written = save_checkpoint(out, network, card)
    click.echo(f"{out}: {out.stat().st_size / 1e6:.2f} MB, sha256 of the tensors {written.sha256}")


if __name__ == "__main__":
    main()
