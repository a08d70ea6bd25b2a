"""From a training run file and its open sources to what the loop is given. Nothing is written here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor

import torch

from vemdiffuse_pipe.errors import ConfigError, PlanError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import show_nm
from vemdiffuse_pipe.models.sizes.a2i3dem import AxialConfig
from vemdiffuse_pipe.models.sizes.protocol import Sizes
from vemdiffuse_pipe.plan.planes import choose_ratio, exact_grid
from vemdiffuse_pipe.training.gaps import QUARTER_TURNS, Batches, GapBatches, RoundRobin, Variation
from vemdiffuse_pipe.training.kinds import grey_of
from vemdiffuse_pipe.training.objectives.residual import linear_between
from vemdiffuse_pipe.training.pool import SlabPool
from vemdiffuse_pipe.training.settings import DataTable, TrainFile, TrainingSource, ValidationTable, box_of
from vemdiffuse_pipe.training.sizes import sizes_of
from vemdiffuse_pipe.training.slabs import CropSpec, SlabSchedule, TrainingVolume
from vemdiffuse_pipe.training.validation import Validation, gaps_in_use, held_gaps
from vemdiffuse_pipe.volume import Source

AXES = {"z": (0,), "y": (1,), "x": (2,), "yx": (1, 2)}
OF_GAPS = (
    "z",
    "quarter_turns",
    "blur",
    "noise",
    "grid",
)
SCALE_BATCHES = 16
ISOTROPIC = Fraction(3, 2)  # dz / dxy below which a volume counts as isotropic, as in a plan


def regions(tables: Sequence[TrainingSource], sources: Sequence[Source]) -> list[Box]:
    """The part of each source that is used. Raises ConfigError for one that is not inside its volume."""
    return [_region(table, source) for table, source in zip(tables, sources, strict=True)]


def _region(table: TrainingSource, source: Source) -> Box:
    whole = source.spec.frame.box
    region = whole if table.region is None else box_of(table.region)
    if region.is_empty or not whole.contains(region):
        raise ConfigError(
            f"source.region {[*map(list, (region.start, region.stop))]} is no part of {source.spec.url}, "
            f"which has {list(whole.stop)} voxels; a region is its first voxel and the one after its last"
        )
    return region


def held_back(table: ValidationTable | None, region: Box) -> Box | None:
    """What nothing may be learnt from, of the source that [validation] names. Raises ConfigError."""
    if table is None:
        return None
    if table.region is not None:
        box = box_of(table.region)
        if box.is_empty or box.intersect(region).is_empty:
            raise ConfigError(
                f"validation.region {[*map(list, table.region)]} has no voxel in the region that is used, "
                f"{[*map(list, (region.start, region.stop))]}"
            )
        return box.intersect(region)
    axis = "zyx".index(table.axis)
    start = list(region.start)
    start[axis] = region.stop[axis] - ceil((table.share or 0) * region.shape[axis])
    return Box((start[0], start[1], start[2]), region.stop)


def ratios(table: DataTable, sources: Sequence[Source]) -> dict[int, float]:
    """Weight of each r. Raises PlanError where it does not go with the voxels of the sources."""
    given = table.ratios or ({table.ratio: 1.0} if table.ratio else None)
    for source in sources:
        _check_ratio(table, given, source)
    if given is not None and table.grid == "whole":
        return dict(given)
    if given is not None or (table.axis == "z" and table.grid == "exact"):
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


def _of_pairs(table: DataTable) -> dict[int, float]:
    """The ratio of a section and itself, between which its restored plane lies. Raises ConfigError."""
    if table.axis != "z" or table.ratio or table.ratios or not isinstance(table.crop_px, int):
        raise ConfigError(
            "sections are restored one by one, in square crops: leave data.axis and data.ratio out, and give "
            "one number as data.crop_px"
        )
    usual = DataTable()
    for name in OF_GAPS:
        if getattr(table, name) != getattr(usual, name):
            raise ConfigError(f"data.{name} is for gaps and says nothing to restored sections: leave it out")
    return {2: 1.0}


def _check_ratio(table: DataTable, given: dict[int, float] | None, source: Source) -> None:
    sizes = source.spec.frame.voxel_size_nm
    exact = sizes[0] / min(sizes[1:])
    shown = f"{source.spec.url} has voxels of {show_nm(sizes)} nm, dz / dxy {float(exact):.4g}"
    if table.axis == "z" and exact >= ISOTROPIC:
        raise PlanError(
            f'{shown}: between its sections there is no truth to learn from; train along y and x, axis = "yx"'
        )
    if table.axis != "z" and given is not None and not any(abs(r - exact) < 1 for r in given):
        raise PlanError(
            f"{shown}, and data.ratio is {', '.join(map(str, given))}: the network would never see "
            f"the gaps that it is for; give {round(exact)}"
        )


def crop_px(table: DataTable, *, is_axial: bool = False) -> tuple[int, int]:
    """Rows and columns of a crop. One row, unless two numbers are given, where planes lie along the gap."""
    if isinstance(table.crop_px, int):
        return 1 if is_axial else table.crop_px, table.crop_px
    return table.crop_px


def cuts(file: TrainFile, deepest: int, source: Source, sizes: Sizes) -> list[CropSpec]:
    """How crops lie in the volumes, for gaps of up to `deepest`. Raises ConfigError."""
    table, multiple, is_axial = file.data, sizes.multiple_px, isinstance(sizes, AxialConfig)
    rows, columns = crop_px(table, is_axial=is_axial)
    if columns % multiple or (rows % multiple and not is_axial):
        nearest = [max(1, round(n / multiple)) * multiple for n in (rows, columns)]
        raise ConfigError(
            f"data.crop_px = {[rows, columns]}; this network needs multiples of {multiple}: "
            f"{nearest[is_axial:]}"
        )
    if is_axial and table.z != "as-is":
        raise ConfigError(
            f'data.z = "{table.z}" says nothing to a network of kind a2i3dem: z lies in none of its planes'
        )
    depth = (1 + 2 * sizes.reach_sections) * deepest + 1 if file.model.task == "isotropic" else 1
    return [
        CropSpec(axis, depth, rows, columns, upsampling, is_axial)
        for axis in AXES[table.axis]
        for upsampling in (_upsamplings(table, source) if axis else (1,))
    ]


def _upsamplings(table: DataTable, source: Source) -> tuple[int, ...]:
    sizes = source.spec.frame.voxel_size_nm
    square = round(sizes[0] / min(sizes[1:]))
    return {"as-is": (1,), "resampled": (square,), "mixed": (1, square)}[table.z]


def variation(table: DataTable) -> Variation:
    """What is done to crops. Quarter turns only where rows and columns are alike, or on demand."""
    alike = table.axis == "z"
    turns = (QUARTER_TURNS if alike else 0.0) if table.quarter_turns is None else table.quarter_turns
    return Variation(turns, table.blur, table.gain, table.least_contrast, table.noise or 0.0)


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What is learnt from, and how it is cut. `held`: what is held back, if anything.

    `sizes`: of the network that learns.
    """

    volumes: tuple[TrainingVolume, ...]
    held: Box | None
    ratios: dict[int, float]
    cuts: tuple[CropSpec, ...]
    sizes: Sizes

    def looked_at(self, look: Callable[[int, TrainingVolume], TrainingVolume]) -> TrainingData:
        """With volumes of which more is known, by number."""
        return replace(self, volumes=tuple(look(i, volume) for i, volume in enumerate(self.volumes)))


def training_data(file: TrainFile, sources: Sequence[Source]) -> TrainingData:
    """What a training run file makes of its sources: no voxel is read.

    Raises ConfigError and PlanError where they do not go together. Contrasts that nobody stated are (0, 1).
    """
    given = ratios(file.data, sources) if file.model.task == "isotropic" else _of_pairs(file.data)
    used = regions(file.source, sources)
    number = file.validation.source if file.validation else 0
    held = held_back(file.validation, used[number])
    volumes = tuple(
        TrainingVolume(
            source, table.contrast or (0.0, 1.0), region, _holes(table, region, held if i == number else None)
        )
        for i, (table, source, region) in enumerate(zip(file.source, sources, used, strict=True))
    )
    sizes = sizes_of(file.model, given, crop_px(file.data))
    made = cuts(file, max(given), sources[0], sizes)
    found = TrainingData(volumes, held, given, tuple(made), sizes)
    for cut in found.cuts:
        slabs(file, found, cut)
    return found


def _holes(table: TrainingSource, region: Box, held: Box | None) -> tuple[Box, ...]:
    rejected = tuple(section_box(region, u) for u in table.rejected_sections)
    return rejected if held is None else (held, *rejected)


def section_box(region: Box, section: int) -> Box:
    """One section of a region."""
    return Box((section, *region.start[1:]), (section + 1, *region.stop[1:]))


def slabs(file: TrainFile, made: TrainingData, cut: CropSpec) -> SlabSchedule:
    """The slabs of one cut. Raises PlanError where a volume has no room for it."""
    table = file.data
    raw_share = 1 / cut.align**2 if any(volume.raw for volume in made.volumes) else 0.0
    n_bytes = int(table.slab_mb * 2**20 / (1 + raw_share))
    return SlabSchedule(made.volumes, cut, file.train.seed, table.pool_slabs, n_bytes, table.samples_per_slab)


def batches(file: TrainFile, made: TrainingData) -> Batches:
    """The batches of the run, to be closed: of each cut in turn."""
    size, changes = file.train.batch_size, variation(file.data)
    reach, grey = made.sizes.reach_sections, grey_of(file.model.kind)
    every = [
        GapBatches(SlabPool(slabs(file, made, cut)), made.ratios, size, changes, reach, grey)
        for cut in made.cuts
    ]
    return every[0] if len(every) == 1 else RoundRobin(every)


def measured_residual_scale(made: Batches) -> float:
    """Deviation of (truth - linear), in deviations of grey, over the first batches: to 3 digits."""
    first = (made.batch(step) for step in range(SCALE_BATCHES))
    squares = [(b.targets - linear_between(b.sections, b.ratio)).square().mean() for b in first]
    return float(f"{float(torch.stack(squares).mean().sqrt()):.3g}") or 1.0


def validation(file: TrainFile, made: TrainingData, device: torch.device) -> Validation:
    """Gaps of what is held back, read once, at the ratio with the largest weight. Raises ConfigError."""
    table, held = file.validation, made.held
    assert table is not None
    assert held is not None
    source = made.volumes[table.source].source
    reach, ratio = made.sizes.reach_sections, max(made.ratios, key=lambda r: made.ratios[r])
    depth, gaps = (1 + 2 * reach) * ratio + 1, []
    for cut in made.cuts:
        rows, columns = (n for i, n in enumerate(held.shape) if i != cut.axis)
        rows = rows if cut.upsampling == 1 else (rows - 2) * cut.upsampling
        rows = min(table.crop_px, rows) if cut.is_axial else fitting(table, made.sizes, rows)
        columns = fitting(table, made.sizes, columns)
        fitted = replace(cut, depth=depth, rows=rows, columns=columns)
        gaps += held_gaps(source, held, fitted, ratio, reach, ceil(table.gaps / len(made.cuts)))
    if file.data.axis != "z":
        y, x = (fitting(table, made.sizes, n) for n in held.shape[1:])
        gaps += gaps_in_use(source, held, (2 + 2 * reach, y, x), table.gaps)
    lines = {"z": (0, 1), "y": (0,), "x": (1,), "yx": (0, 1)}[file.data.axis]
    return Validation(gaps, ratio, file.model.samples, lines, device)


def fitting(table: ValidationTable, sizes: Sizes, n: int) -> int:
    """Side of what is drawn for validation where there are `n` pixels: the tile, where there is one size."""
    if sizes.tile_px and sizes.context_px >= sizes.tile_px:
        return sizes.tile_px
    return max(1, min(table.crop_px, n) // sizes.multiple_px) * sizes.multiple_px
