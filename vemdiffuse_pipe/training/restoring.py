"""Training to restore sections: from a training run file to raw and clean pairs, read where they are.

    [source]   url   the clean volume          raw   the raw one of the same place, registered; or made
    [data]     peak, read_std                  the noise of a raw volume that is made (pairs.MadeRaw)

Contrast is that of the raw volume, all of it, since that is what a run will see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.training import prepare
from vemdiffuse_pipe.training.gaps import Batches
from vemdiffuse_pipe.training.kinds import grey_of
from vemdiffuse_pipe.training.pairs import SCALE, MadeRaw, PairBatches, PairTask, rim_px
from vemdiffuse_pipe.training.pool import SlabPool
from vemdiffuse_pipe.training.prepare import TrainingData, fitting
from vemdiffuse_pipe.training.settings import TrainFile
from vemdiffuse_pipe.training.slabs import TrainingVolume, coarser, generator
from vemdiffuse_pipe.training.validation import SEED, HeldGap, Validation
from vemdiffuse_pipe.volume import Source


def paired(file: TrainFile, made: TrainingData, raws: Sequence[Source | None]) -> TrainingData:
    """What is learnt from, each volume with its raw one: the one that is stated, or one that is made.

    No voxel is read. Raises ConfigError where a raw volume is not of the same place.
    """
    return made.looked_at(lambda i, volume: _with_raw(file, volume, raws[i], file.train.seed + i))


def _with_raw(file: TrainFile, volume: TrainingVolume, raw: Source | None, seed: int) -> TrainingVolume:
    task, table = task_of(file), file.data
    if raw is None and task == "denoise" and table.peak is None:
        raise ConfigError(
            "there is nothing to restore: give source.raw, the raw volume, or data.peak, the noise of one "
            "that is made"
        )
    if raw is None:
        raw = MadeRaw(volume.source, task, table.peak, table.read_std or 0.0, seed)
    scale, (z, y, x) = SCALE[task], volume.source.spec.shape
    if raw.spec.shape != (z, y // scale, x // scale):
        raise ConfigError(
            f"source.raw, {raw.spec.url}, has {list(raw.spec.shape)} voxels; for {task} of {[z, y, x]} "
            f"{[z, y // scale, x // scale]} are needed"
        )
    holes = tuple(hole.whole((1, scale, scale)) for hole in volume.holes)
    return replace(volume, raw=raw, region=_even(volume.region, scale), holes=holes)


def batches(file: TrainFile, made: TrainingData) -> Batches:
    """Batches of random pairs of what is not held back. Raises PlanError where there is no room for one."""
    task, (cut,) = task_of(file), made.cuts
    rim = rim_px(task)
    if made.sizes.multiple_px % SCALE[task]:
        raise ConfigError(
            f"a network of kind {file.model.kind} and of one level takes tiles of odd sizes, which {task} "
            "does not have; give it more levels"
        )
    wide = replace(cut, rows=cut.rows + rim, columns=cut.columns + rim, align=SCALE[task])
    pool, table = SlabPool(prepare.slabs(file, made, wide)), file.data
    return PairBatches(
        pool, task, file.train.batch_size, table.gain, table.least_contrast, grey_of(file.model.kind)
    )


def validation(file: TrainFile, made: TrainingData, device: torch.device) -> Validation:
    """Crops of what is held back, always the same, read once. Raises ConfigError where none fits."""
    table, held = file.validation, made.held
    assert table is not None
    assert held is not None
    volume, scale = made.volumes[table.source], SCALE[task_of(file)]
    assert volume.raw is not None
    box, halo = _even(held, scale), scale - 1
    rim = 2 * halo
    y, x = (fitting(table, made.sizes, n - 2 * rim) for n in box.shape[1:])
    if min(n - m for n, m in zip(box.shape[1:], (y, x), strict=True)) < 2 * rim or box.is_empty:
        raise ConfigError(
            f"what is held back for validation, {' x '.join(map(str, held.shape))} voxels, holds no crop of "
            f"{y} x {x} px with its rim; hold back more, or give a smaller validation.crop_px"
        )
    rng = generator(SEED, 0, 0, 0)
    gaps = []
    for _ in range(table.gaps):
        z = int(rng.integers(box.start[0], box.stop[0]))
        top, left = (
            scale * int(rng.integers((a + rim) // scale, (b - rim - n) // scale + 1))
            for a, b, n in zip(box.start[1:], box.stop[1:], (y, x), strict=True)
        )
        clean = volume.source.read(Box.of_shape((1, y, x), (z, top, left)))
        around = Box.of_shape((1, y + 2 * rim, x + 2 * rim), (z, top - rim, left - rim))
        gaps.append(HeldGap(volume.raw.read(coarser(around, scale)), clean, clean))
    return Validation(gaps, 2, file.model.samples, (0, 1), device)


def task_of(file: TrainFile) -> PairTask:
    """What the sections are restored for."""
    assert file.model.task != "isotropic"
    return file.model.task


def _even(box: Box, scale: int) -> Box:
    """The part of a box that is made of whole raw pixels."""
    (z, y, x), (c, b, a) = box.start, box.stop
    return Box(
        (z, -(-y // scale) * scale, -(-x // scale) * scale), (c, b // scale * scale, a // scale * scale)
    )
