"""Small volumes, networks and training files for the tests of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
import torch

from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.models.lean import LeanConfig, LeanNetwork
from vemdiffuse_pipe.testing import ArraySource
from vemdiffuse_pipe.training.gaps import GapBatches, Variation
from vemdiffuse_pipe.training.pool import SlabPool
from vemdiffuse_pipe.training.slabs import CropSpec, SlabSchedule, TrainingVolume
from vemdiffuse_pipe.volume import Source

SMALL = LeanConfig(channels=(8, 12), n_blocks=1, n_basis=4, n_embedding=16)
PLAIN = Variation(quarter_turns=0.0, gain=0.0, least_contrast=0.0)
CUT = CropSpec(0, 4, 16, 16)
MODEL = {"channels": [8, 12], "n_blocks": 1, "n_basis": 4, "n_embedding": 16, "steps": 2}


def network(*, difficulty: bool = False) -> LeanNetwork:
    torch.manual_seed(0)
    return LeanNetwork(SMALL, difficulty=difficulty)


def volume(source: Source, *, region: Box | None = None, holes: tuple[Box, ...] = ()) -> TrainingVolume:
    """All of a source, its grey levels taken as they are."""
    return TrainingVolume(source, (0.0, 1.0), region or source.spec.frame.box, holes)


def batches(
    *volumes: TrainingVolume,
    cut: CropSpec = CUT,
    ratios: dict[int, float] | None = None,
    batch_size: int = 4,
    variation: Variation = PLAIN,
    **options: int,
) -> GapBatches:
    """Batches of gaps three planes wide; close them."""
    schedule = SlabSchedule(volumes, cut, **options)
    return GapBatches(SlabPool(schedule), ratios or {cut.depth - 1: 1.0}, batch_size, variation)


def noise(shape: Zyx, seed: int = 0) -> ArraySource:
    return ArraySource(np.random.default_rng(seed).integers(1, 255, shape, dtype=np.uint8))


def smooth_stack(folder: Path, shape: Zyx = (32, 48, 48)) -> Path:
    """A TIFF stack with structure that can be learnt."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    waves = 128 + 40 * np.sin(z / 2 + y / 5) + 40 * np.cos(x / 4 - z / 3)
    grain = np.random.default_rng(1).normal(0, 8, shape)
    path = folder / "volume.tif"
    tifffile.imwrite(path, np.clip(waves + grain, 1, 254).astype(np.uint8), photometric="minisblack")
    return path


def train_tables(folder: Path, **changes: dict[str, object]) -> dict[str, object]:
    """A training file of a few quick steps on `smooth_stack`, with tables changed."""
    tables: dict[str, dict[str, object]] = {
        "source": {"url": str(folder / "volume.tif"), "voxel_size_nm": [10, 10, 10], "contrast": [128, 40]},
        "data": {"ratio": 3, "crop_px": 16},
        "model": {**MODEL, "residual_scale": 0.5},
        "train": {"steps": 12, "batch_size": 4, "warmup": 2, "precision": "float32"},
        "output": {"folder": str(folder / "trained")},
    }
    tables["train"] |= {"validate_every": 6, "save_every": 3, "log_every": 3}
    for name, keys in changes.items():
        tables[name] = {**tables.get(name, {}), **keys}
    return dict(tables)
