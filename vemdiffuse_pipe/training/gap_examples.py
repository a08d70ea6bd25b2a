"""Examples of gaps: sections, and the planes between them to learn from (`training.examples.Examples`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import ceil, floor

import torch

from vemdiffuse_pipe.errors import ConfigError, PlanError
from vemdiffuse_pipe.geometry.frame import show_nm
from vemdiffuse_pipe.plan.planes import choose_ratio, exact_grid
from vemdiffuse_pipe.training.gaps import QUARTER_TURNS, Batches, GapBatches, RoundRobin, Variation
from vemdiffuse_pipe.training.kinds import grey_of
from vemdiffuse_pipe.training.objectives.residual import linear_between
from vemdiffuse_pipe.training.pool import SlabPool
from vemdiffuse_pipe.training.prepare import TrainingData, fitting, slabs
from vemdiffuse_pipe.training.settings import DataTable, TrainFile
from vemdiffuse_pipe.training.validation import Validation, gaps_in_use, held_gaps
from vemdiffuse_pipe.volume import Source

SCALE_BATCHES = 16
ISOTROPIC = Fraction(3, 2)  # dz / dxy below which a volume counts as isotropic, as in a plan


def ratios(table: DataTable, sources: Sequence[Source]) -> dict[int, float]:
    """Weight of each r. Raises PlanError where it does not go with the voxels of the sources."""
    stated = table.ratios or ({table.ratio: 1.0} if table.ratio else None)
    for source in sources:
        _check_ratio(table, stated, source)
    if stated is not None and table.grid == "whole":
        return dict(stated)
    if stated is not None or (table.axis == "z" and table.grid == "exact"):
        raise ConfigError(
            'data.grid = "exact" takes r from the voxels of thick sections: leave data.ratio and data.ratios '
            'out, and train along y and x, axis = "yx"'
        )
    if table.axis == "z":
        raise ConfigError("data.ratio is missing: how many planes apart the sections of a gap are")
    frame = sources[0].spec.frame
    return around(exact_grid(frame)) if table.grid == "exact" else {choose_ratio(frame, None): 1.0}


def around(r: Fraction | int) -> dict[int, float]:
    """Weights of the whole numbers on either side of r whose mean is r; never below 2, the narrowest gap."""
    below = max(2, floor(r))
    return {below: 1.0} if r <= below else {below: float(below + 1 - r), below + 1: float(r - below)}


def _check_ratio(table: DataTable, stated: dict[int, float] | None, source: Source) -> None:
    sizes = source.spec.frame.voxel_size_nm
    exact = sizes[0] / min(sizes[1:])
    shown = f"{source.spec.url} has voxels of {show_nm(sizes)} nm, dz / dxy {float(exact):.4g}"
    if table.axis == "z" and exact >= ISOTROPIC:
        raise PlanError(
            f'{shown}: between its sections there is no truth to learn from; train along y and x, axis = "yx"'
        )
    if table.axis != "z" and stated is not None and not any(abs(r - exact) < 1 for r in stated):
        raise PlanError(
            f"{shown}, and data.ratio is {', '.join(map(str, stated))}: the network would never see "
            f"the gaps that it is for; give {round(exact)}"
        )


def depth(ratio: int, reach: int) -> int:
    """Planes of a crop: its gap and `reach` gaps more on either side, all their sections included."""
    return (1 + 2 * reach) * ratio + 1


def with_raw(file: TrainFile, data: TrainingData, raws: Sequence[Source | None]) -> TrainingData:
    """`data` as it is: gaps have no raw counterpart."""
    return data


def variation(table: DataTable) -> Variation:
    """What is done to crops. Quarter turns only where rows and columns are alike, or on demand."""
    alike = table.axis == "z"
    turns = (QUARTER_TURNS if alike else 0.0) if table.quarter_turns is None else table.quarter_turns
    return Variation(turns, table.blur, table.gain, table.least_contrast, table.noise or 0.0)


def batches(file: TrainFile, data: TrainingData) -> Batches:
    """The batches of the run, to be closed: of each cut in turn."""
    size, changes = file.train.batch_size, variation(file.data)
    reach, grey = data.sizes.reach_sections, grey_of(file.model.kind)
    by_cut = [
        GapBatches(SlabPool(slabs(file, data, cut)), data.ratios, size, changes, reach, grey)
        for cut in data.cuts
    ]
    return by_cut[0] if len(by_cut) == 1 else RoundRobin(by_cut)


def measured_residual_scale(batches: Batches) -> float:
    """Deviation of (truth - linear), in deviations of grey, over the first batches: to 3 digits."""
    first = (batches.batch(step) for step in range(SCALE_BATCHES))
    gaps = ((*batch.middle, batch.ratio) for batch in first)
    squares = [(planes - linear_between(sections, r)).square().mean() for sections, planes, r in gaps]
    return float(f"{float(torch.stack(squares).mean().sqrt()):.3g}") or 1.0


def validation(file: TrainFile, data: TrainingData, device: torch.device) -> Validation:
    """Gaps of what is held back, read once, at the ratio with the largest weight. Raises ConfigError."""
    table, held = file.validation, data.held
    assert table is not None
    assert held is not None
    source = data.volumes[table.source].source
    reach, ratio = data.sizes.reach_sections, max(data.ratios, key=lambda r: data.ratios[r])
    depth, gaps = (1 + 2 * reach) * ratio + 1, []
    for cut in data.cuts:
        rows, columns = (n for i, n in enumerate(held.shape) if i != cut.axis)
        rows = rows if cut.upsampling == 1 else (rows - 2) * cut.upsampling
        rows = min(table.crop_px, rows) if cut.is_axial else fitting(table, data.sizes, rows)
        columns = fitting(table, data.sizes, columns)
        fitted = replace(cut, depth=depth, rows=rows, columns=columns)
        gaps += held_gaps(source, held, fitted, ratio, reach, ceil(table.gaps / len(data.cuts)))
    if file.data.axis != "z":
        y, x = (fitting(table, data.sizes, n) for n in held.shape[1:])
        gaps += gaps_in_use(source, held, (2 + 2 * reach, y, x), table.gaps)
    lines = {"z": (0, 1), "y": (0,), "x": (1,), "yx": (0, 1)}[file.data.axis]
    return Validation(gaps, ratio, file.model.samples, lines, device)
