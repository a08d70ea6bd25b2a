"""Examples of restored sections: raw and clean pairs (`training.examples.Examples`).

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
from vemdiffuse_pipe.training.gaps import Batches
from vemdiffuse_pipe.training.kinds import grey_of
from vemdiffuse_pipe.training.pairs import MadeRaw, PairBatches, rim_px
from vemdiffuse_pipe.training.pool import SlabPool
from vemdiffuse_pipe.training.prepare import TrainingData, fitting, slabs
from vemdiffuse_pipe.training.settings import DataTable, TrainFile
from vemdiffuse_pipe.training.slabs import TrainingVolume, coarser, generator
from vemdiffuse_pipe.training.validation import SEED, HeldGap, Validation
from vemdiffuse_pipe.volume import Source

GAP_OPTIONS = ("z", "quarter_turns", "blur", "noise", "grid")  # keys of [data] that say nothing of sections


def ratios(table: DataTable, sources: Sequence[Source]) -> dict[int, float]:
    """The ratio of a section and itself, between which its restored plane lies: 2. Raises ConfigError."""
    if table.axis != "z" or table.ratio or table.ratios or not isinstance(table.crop_px, int):
        raise ConfigError(
            "sections are restored one by one, in square crops: leave data.axis and data.ratio out, and give "
            "one number as data.crop_px"
        )
    usual = DataTable()
    for name in GAP_OPTIONS:
        if getattr(table, name) != getattr(usual, name):
            raise ConfigError(f"data.{name} is for gaps and says nothing to restored sections: leave it out")
    return {2: 1.0}


def depth(ratio: int, reach: int) -> int:
    """One section: it is restored by itself."""
    return 1


def with_raw(file: TrainFile, data: TrainingData, raws: Sequence[Source | None]) -> TrainingData:
    """What is learnt from, each volume with its raw one: the one that is stated, or one that is made.

    No voxel is read. Raises ConfigError where a raw volume is not of the same place.
    """
    return data.with_volumes(lambda i, volume: _with_raw(file, volume, raws[i], file.train.seed + i))


def _with_raw(file: TrainFile, volume: TrainingVolume, raw: Source | None, seed: int) -> TrainingVolume:
    scale, table = _scale(file), file.data
    if raw is None and scale == 1 and table.peak is None:
        raise ConfigError(
            "there is nothing to restore: give source.raw, the raw volume, or data.peak, the noise of one "
            "that is made"
        )
    if raw is None:
        raw = MadeRaw(volume.source, scale, table.peak, table.read_std or 0.0, seed)
    z, y, x = volume.source.spec.shape
    if raw.spec.shape != (z, y // scale, x // scale):
        raise ConfigError(
            f"source.raw, {raw.spec.url}, has {list(raw.spec.shape)} voxels; for {file.model.task} of "
            f"{[z, y, x]} {[z, y // scale, x // scale]} are needed"
        )
    holes = tuple(hole.whole((1, scale, scale)) for hole in volume.holes)
    return replace(volume, raw=raw, region=_even(volume.region, scale), holes=holes)


def batches(file: TrainFile, data: TrainingData) -> Batches:
    """Batches of random pairs of what is not held back. Raises PlanError where there is no room for one."""
    scale, (cut,) = _scale(file), data.cuts
    rim = rim_px(scale)
    if data.sizes.multiple_px % scale:
        raise ConfigError(
            f"a network of kind {file.model.kind} and of one level takes tiles of odd sizes, which "
            f"{file.model.task} does not have; give it more levels"
        )
    wide = replace(cut, rows=cut.rows + rim, columns=cut.columns + rim, align=scale)
    pool, table = SlabPool(slabs(file, data, wide)), file.data
    return PairBatches(
        pool, scale, file.train.batch_size, table.gain, table.least_contrast, grey_of(file.model.kind)
    )


def validation(file: TrainFile, data: TrainingData, device: torch.device) -> Validation:
    """Crops of what is held back, always the same, read once. Raises ConfigError where none fits."""
    table, held = file.validation, data.held
    assert table is not None
    assert held is not None
    volume, scale = data.volumes[table.source], _scale(file)
    assert volume.raw is not None
    box, halo = _even(held, scale), scale - 1
    rim = 2 * halo
    y, x = (fitting(table, data.sizes, n - 2 * rim) for n in box.shape[1:])
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


def _scale(file: TrainFile) -> int:
    """Clean pixels for one raw pixel, along y and along x."""
    return file.model.task_facts.scale


def _even(box: Box, scale: int) -> Box:
    """The part of a box that is made of whole raw pixels."""
    (z, y, x), (c, b, a) = box.start, box.stop
    return Box(
        (z, -(-y // scale) * scale, -(-x // scale) * scale), (c, b // scale * scale, a // scale * scale)
    )
