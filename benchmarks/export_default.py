"""Make the default model's checkpoint: `export_default.py ESTIMATOR SAMPLER OUT`, two folders of training."""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.torch import load_file

from vemdiffuse_pipe.models.card import ModelCard
from vemdiffuse_pipe.models.checkpoint import save_checkpoint
from vemdiffuse_pipe.models.gap_models import BothNetworks

SCALE = 0.4  # of train_default.py
DATA = (
    "FIB-25 (Drosophila medulla, FIB-SEM): training samples 1 and 2, and sections z < 180 of the validation "
    "sample; Takemura et al., PNAS 2015. Sections dropped, averaged, and imaged as other microscopes do"
)
LICENCE = "weights BSD-3-Clause; the data they were trained on: Creative Commons attribution"


def main() -> None:
    """Read the averages of both trainings, write one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("estimator", type=Path)
    parser.add_argument("sampler", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--training", default="", help="device, time and date, in a sentence")
    parser.add_argument("--figures", default="", help="what was measured, in a sentence")
    options = parser.parse_args()
    network, steps = BothNetworks(), []
    for name, folder in (("estimator", options.estimator), ("sampler", options.sampler)):
        tensors = load_file(folder / "state.safetensors")
        average = {
            key.removeprefix("average."): t for key, t in tensors.items() if key.startswith("average.")
        }
        getattr(network, name).load_state_dict(average)
        steps.append(f"{name} {int(tensors['adam.0.step'])}")
    card = ModelCard(
        "fib25-estimator-sampler", "estimator-sampler", "", False, False, 0, 0, 1, 2, 12, samples=1, steps=8,
        residual_scale=SCALE, trained_on=DATA, training=f"{', '.join(steps)} steps of 16 crops of 64 px, "
        f"bfloat16 autocast, Adam 1e-3, EMA 0.999; {options.training}",
        voxel_size_nm="10 nm, resampled to pixels of 4 to 20 nm", licence=LICENCE, figures=options.figures,
    )  # fmt: skip
    print(save_checkpoint(options.out, network, card))


if __name__ == "__main__":
    main()
