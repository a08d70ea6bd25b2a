"""CARE, Noise2Noise and Noise2Void on the pairs of restoration.py, in an environment of their own.

    python benchmarks/restoration.py DATA FOLDER --task denoise --steps 1500
    python3 -m venv careamics && careamics/bin/pip install careamics==0.3.5
    careamics/bin/python benchmarks/careamics_baselines.py DATA FOLDER --method care
    vemdiffuse evaluate FOLDER/care.tif FOLDER/denoise_truth.tif --every-plane

CAREamics 0.3.5 asks for torchvision <= 0.26.0, which asks for torch == 2.11.0, and for torchmetrics < 1.9: it
resolves by itself, but not beside a newer torch. Nothing of vemdiffuse_pipe is imported here, so the noise is
made anew, with the numbers of restoration.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import tifffile
from careamics import CAREamist
from careamics.config.factories import create_care_config, create_n2n_config, create_n2v_config

PEAK, READ_STD = 40.0, 8.0  # as in restoration.py
SETTINGS = {"data_type": "array", "axes": "SYX", "patch_size": [64, 64], "batch_size": 8}


def noisy(clean: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(key=seed))
    counts = rng.poisson(clean.astype(np.float64) * (PEAK / 255))
    values = counts * (255 / PEAK) + READ_STD * rng.standard_normal(clean.shape)
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)


def training_volume(data: Path) -> np.ndarray:
    """Sections z < 200 of volume a, float32: CAREamics wants the images of an array to be of one size."""
    return tifffile.imread(data / "volume_a_raw.tif", key=range(200)).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--method", choices=["care", "n2n", "n2v"], default="care")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batches", type=int, default=100, help="of an epoch")
    given = parser.parse_args()
    create = {"care": create_care_config, "n2n": create_n2n_config, "n2v": create_n2v_config}[given.method]
    config = create(
        experiment_name=given.method, num_epochs=given.epochs, num_steps=given.batches, **SETTINGS
    )
    clean = training_volume(given.data)
    raw = noisy(clean, 0).astype(np.float32)
    target = {"care": clean, "n2n": noisy(clean, 1).astype(np.float32), "n2v": None}[given.method]
    careamist = CAREamist(config, work_dir=given.folder / given.method)
    careamist.train(train_data=raw, train_data_target=target)
    test = tifffile.imread(given.folder / "denoise_raw.tif").astype(np.float32)
    predicted, _ = careamist.predict(test, tile_size=(128, 128), tile_overlap=(48, 48))
    grey = np.clip(np.asarray(predicted).reshape(test.shape) + 0.5, 0, 255).astype(np.uint8)
    tifffile.imwrite(given.folder / f"{given.method}.tif", grey, photometric="minisblack")


if __name__ == "__main__":
    main()
