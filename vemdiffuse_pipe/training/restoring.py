"""Training to restore sections: from a training run file to raw and clean pairs, in memory.

    [source]   url   the clean volume          raw   the raw one of the same place, registered; or made
    [data]     peak, read_std                  the noise of a raw volume that is made (pairs.with_noise)

Pairs are cut from boxes that touch nothing of what is held back. Contrast is that of the raw volume, since
that is what a run will see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.training.gaps import Batches
from vemdiffuse_pipe.training.kinds import grey_of
from vemdiffuse_pipe.training.pairs import SCALE, PairSampler, PairTask, PairVolume, halved, with_noise
from vemdiffuse_pipe.training.prepare import Material, fitting
from vemdiffuse_pipe.training.region import without
from vemdiffuse_pipe.training.settings import DataTable, TrainFile
from vemdiffuse_pipe.training.slabs import generator
from vemdiffuse_pipe.training.validation import SEED, HeldGap, Validation
from vemdiffuse_pipe.volume import Source, Voxels


def paired(
    file: TrainFile, made: Material, raws: Sequence[Source | None]
) -> tuple[Material, list[PairVolume]]:
    """The pair of each source's region, read whole, and what is learnt from with the contrast of raw ones.

    Raises ConfigError where a raw volume is not of the same place, and what reading raises.
    """
    task, pairs = task_of(file), []
    for i, (volume, raw) in enumerate(zip(made.volumes, raws, strict=True)):
        box = _even(volume.region, SCALE[task])
        clean = volume.source.read(box)
        seed = file.train.seed + i
        given = _worse(clean, file.data, task, seed) if raw is None else _raw(raw, volume.source, box, task)
        pair = PairVolume.of(given, clean)
        mean, std = file.source[i].contrast or (round(pair.mean, 3), round(pair.std, 3))
        pairs.append(replace(pair, mean=mean, std=std))
    volumes = (replace(v, contrast=(p.mean, p.std)) for v, p in zip(made.volumes, pairs, strict=True))
    return replace(made, volumes=tuple(volumes)), pairs


def batches(file: TrainFile, made: Material, pairs: Sequence[PairVolume]) -> Batches:
    """Batches of random crops of what is not held back. Raises ConfigError where there is none."""
    task, (side,) = task_of(file), {cut.rows for cut in made.cuts}
    scale, parts = SCALE[task], []
    for volume, pair in zip(made.volumes, pairs, strict=True):
        mean, std = grey_of(file.model.kind) or (pair.mean, pair.std)
        boxes = [_even(volume.region, scale)]
        for hole in volume.holes:
            boxes = [part for box in boxes for part in without(box, hole)]
        inside = (_even(box, scale).relative_to(_even(volume.region, scale).start) for box in boxes)
        parts += [
            PairVolume(_at(pair.raw, box, scale), _at(pair.clean, box), mean, std)
            for box in inside
            if not box.is_empty and min(box.shape[1:]) >= side + 2 * scale
        ]
    if not parts:
        raise ConfigError(
            f"what is not held back holds no crop of {side} px with its rim; take a larger region, or a "
            "smaller data.crop_px"
        )
    return PairSampler(parts, task, side, file.train.batch_size, file.train.seed, file.data.gain)


def validation(
    file: TrainFile, made: Material, pairs: Sequence[PairVolume], device: torch.device
) -> Validation:
    """Crops of what is held back, always the same. Raises ConfigError where none fits."""
    table, held = file.validation, made.held
    assert table is not None
    assert held is not None
    task, pair = task_of(file), pairs[table.source]
    scale = SCALE[task]
    box = _even(held, scale).relative_to(_even(made.volumes[table.source].region, scale).start)
    rim = 2 * (scale - 1)
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
        clean = pair.clean[z : z + 1, top : top + y, left : left + x]
        halo = scale - 1
        rows, columns = (slice(a // scale - halo, (a + n) // scale + halo) for a, n in ((top, y), (left, x)))
        gaps.append(HeldGap(pair.raw[z : z + 1, rows, columns], clean, clean))
    return Validation(gaps, 2, file.model.samples, (0, 1), device)


def task_of(file: TrainFile) -> PairTask:
    """What the sections are restored for."""
    assert file.model.task != "isotropic"
    return file.model.task


def _worse(clean: Voxels, table: DataTable, task: PairTask, seed: int) -> Voxels:
    """A raw volume made of a clean one: halved for superres, with noise where some is asked for."""
    raw = halved(clean) if task == "superres" else clean
    if table.peak is None:
        return raw
    return with_noise(raw, peak=table.peak, read_std=table.read_std or 0.0, seed=seed)


def _raw(raw: Source, clean: Source, box: Box, task: PairTask) -> Voxels:
    scale, (z, y, x) = SCALE[task], clean.spec.shape
    if raw.spec.shape != (z, y // scale, x // scale):
        raise ConfigError(
            f"source.raw, {raw.spec.url}, has {list(raw.spec.shape)} voxels; for {task} of {[z, y, x]} "
            f"{[z, y // scale, x // scale]} are needed"
        )
    return raw.read(Box(_divided(box.start, scale), _divided(box.stop, scale)))


def _divided(place: tuple[int, int, int], scale: int) -> tuple[int, int, int]:
    z, y, x = place
    return z, y // scale, x // scale


def _even(box: Box, scale: int) -> Box:
    """The part of a box that is made of whole raw pixels."""
    (z, y, x), (c, b, a) = box.start, box.stop
    return Box(
        (z, -(-y // scale) * scale, -(-x // scale) * scale), (c, b // scale * scale, a // scale * scale)
    )


def _at(voxels: Voxels, box: Box, scale: int = 1) -> Voxels:
    part: Voxels = voxels[Box(_divided(box.start, scale), _divided(box.stop, scale)).slices]
    return np.ascontiguousarray(part)
