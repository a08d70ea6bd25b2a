"""How volumes are cut into crops: regions, what is held back, slabs. No voxel is read here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.models.sizes.a2i3dem import AxialConfig
from vemdiffuse_pipe.models.sizes.protocol import Sizes
from vemdiffuse_pipe.training.settings import DataTable, TrainFile, TrainingSource, ValidationTable, box_of
from vemdiffuse_pipe.training.slabs import CropSpec, SlabSchedule, TrainingVolume
from vemdiffuse_pipe.volume import Source

AXES = {"z": (0,), "y": (1,), "x": (2,), "yx": (1, 2)}


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


def crop_px(table: DataTable, *, is_axial: bool = False) -> tuple[int, int]:
    """Rows and columns of a crop. One row, unless two numbers are given, where planes lie along the gap."""
    if isinstance(table.crop_px, int):
        return 1 if is_axial else table.crop_px, table.crop_px
    return table.crop_px


def cuts(file: TrainFile, depth: int, source: Source, sizes: Sizes) -> list[CropSpec]:
    """How crops lie in the volumes, each `depth` planes along its gap. Raises ConfigError."""
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
    return [
        CropSpec(axis, depth, rows, columns, upsampling, is_axial)
        for axis in AXES[table.axis]
        for upsampling in (_upsamplings(table, source) if axis else (1,))
    ]


def _upsamplings(table: DataTable, source: Source) -> tuple[int, ...]:
    sizes = source.spec.frame.voxel_size_nm
    square = round(sizes[0] / min(sizes[1:]))
    return {"as-is": (1,), "resampled": (square,), "mixed": (1, square)}[table.z]


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What is learnt from, and how it is cut."""

    volumes: tuple[TrainingVolume, ...]
    held: Box | None
    """What nothing may be learnt from, in voxels of the volume that validation names."""
    ratios: dict[int, float]
    """Weight of each ratio."""
    cuts: tuple[CropSpec, ...]
    sizes: Sizes
    """Sizes of the network that learns."""

    def with_volumes(self, change: Callable[[int, TrainingVolume], TrainingVolume]) -> TrainingData:
        """The same, each volume replaced by `change` of its number and itself."""
        return replace(self, volumes=tuple(change(i, volume) for i, volume in enumerate(self.volumes)))


def holes(table: TrainingSource, region: Box, held: Box | None) -> tuple[Box, ...]:
    """What nothing may be learnt from in a region: rejected sections, and what is held back."""
    rejected = tuple(section_box(region, u) for u in table.rejected_sections)
    return rejected if held is None else (held, *rejected)


def section_box(region: Box, section: int) -> Box:
    """One section of a region."""
    return Box((section, *region.start[1:]), (section + 1, *region.stop[1:]))


def slabs(file: TrainFile, data: TrainingData, cut: CropSpec) -> SlabSchedule:
    """The slabs of one cut. Raises PlanError where a volume has no room for it."""
    table = file.data
    raw_share = 1 / cut.align**2 if any(volume.raw for volume in data.volumes) else 0.0
    n_bytes = int(table.slab_mb * 2**20 / (1 + raw_share))
    return SlabSchedule(data.volumes, cut, file.train.seed, table.pool_slabs, n_bytes, table.samples_per_slab)


def fitting(table: ValidationTable, sizes: Sizes, n: int) -> int:
    """Side of what is drawn for validation where there are `n` pixels: the tile, where there is one size."""
    if sizes.tile_px and sizes.context_px >= sizes.tile_px:
        return sizes.tile_px
    return max(1, min(table.crop_px, n) // sizes.multiple_px) * sizes.multiple_px
