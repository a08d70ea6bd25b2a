"""The training run file: TOML in, frozen and checked values out. An unknown key names the nearest.

[source]      where the volume is, as in a run file; [[source]] more than once for several
[data]        what is cut from it             [validation]  what is held back
[model]       the network and its objective   [train]       how long, how fast, where
[output]      the folder of the run, and what the checkpoint says of itself
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from vemdiffuse_pipe.config import (
    Amount,
    Count,
    Finite,
    Grid,
    Length,
    SourceTable,
    Table,
    Task,
    check,
    read_tables,
)
from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.models.tasks import TASKS, TaskFacts

Place = Annotated[int, Field(ge=0, le=2**40)]
Corner = tuple[Place, Place, Place]
Region = tuple[Corner, Corner]
Ratio = Annotated[int, Field(ge=2, le=1024)]
Share = Annotated[Finite, Field(ge=0, le=1)]
Px = Annotated[int, Field(ge=8, le=4096)]
Axis = Literal["z", "y", "x", "yx"]

WHERE_FROM = "workflows/train_fib25.toml is one to start from"


def box_of(region: Region) -> Box:
    """The box between two corners: the first voxel, and the one after the last."""
    return Box(*region)


class TrainingSource(SourceTable):
    """[source] a volume; `region`: the part of it that is used, as two corners, zyx. Else all of it.

    `raw`: where sections are restored, the raw volume of the same place, registered with this, the clean one.
    """

    region: Region | None = None
    raw: str | None = None


class DataTable(Table):
    """[data] what is cut from the sources: gaps along `axis`, of one `ratio` or of several with weights.

    `grid`: exact, for use on an exact grid: gaps as wide as the whole numbers below and above dz / dxy, each
    so often that it is their mean; no grey level is interpolated for that.
    `crop_px`: side of a crop, or two: (y, x) for axis z, (z, x) for y, (z, y) for x; for a2i3dem, whose
    planes the gap lies in, one number is their other side. `z`: the coarse axis of a crop that
    has one is left as it is, or resampled linearly until its pixels are square, or both in turn. Left as it
    is, the network sees measured grey levels, in pixels that are r times too high, and draws too much fine
    texture; resampled, it sees right shapes, and smooth lines where it will meet texture; of both it learns
    to draw the texture that it finds in the sections.
    `quarter_turns`, `blur`: share of the crops, of the sections, that get one. `gain`: largest change of
    contrast. `least_contrast`: crops that vary less are not used, in deviations of the grey levels. `noise`:
    deviation of what is added to sections, in those of the grey levels. `peak`, `read_std`: of the noise of a
    raw volume that is made of the clean one: electrons that make white, and grey levels added in reading.
    In memory are `pool_slabs` slabs of up to `slab_mb`, each read for `samples_per_slab` crops on average.
    """

    axis: Axis = "z"
    ratio: Ratio | None = None
    ratios: Annotated[dict[Ratio, Length], Field(min_length=1, max_length=64)] | None = None
    grid: Grid = "whole"
    crop_px: Px | tuple[Px, Px] = 64
    z: Literal["as-is", "resampled", "mixed"] = "as-is"
    quarter_turns: Share | None = None
    blur: Share = 0.0
    gain: Annotated[Finite, Field(ge=0, lt=1)] = 0.1
    least_contrast: Annotated[Finite, Field(ge=0, le=10)] = 0.1
    noise: Annotated[Finite, Field(ge=0, le=10)] | None = None
    peak: Annotated[Length, Field(le=1e6)] | None = None
    read_std: Amount | None = None
    pool_slabs: Annotated[int, Field(ge=1, le=1024)] = 8
    slab_mb: Annotated[Finite, Field(gt=0, le=1e5)] = 8.0
    samples_per_slab: Annotated[int, Field(ge=1, le=2**20)] | None = None


class ValidationTable(Table):
    """[validation] what is held back, of source number `source`: a region, or a share at the end of an axis.

    Every so often `gaps` gaps of `crop_px` are drawn by the real sampler and compared with what was measured.
    A model's score is its PSNR, less `line_weight` for each dB of excess or lack of fine lines.
    """

    source: Annotated[int, Field(ge=0, le=1023)] = 0
    region: Region | None = None
    share: Annotated[Finite, Field(gt=0, lt=1)] | None = None
    axis: Literal["z", "y", "x"] = "z"
    gaps: Annotated[int, Field(ge=1, le=4096)] = 8
    crop_px: Px = 128
    line_weight: Annotated[Finite, Field(ge=0)] = 0.5


class NetworkTable(Table):
    """[model] the network, and how it is used. Sizes that are left out are those of its kind.

    Sizes of a `lean` or `regression` network: channels, n_blocks, n_basis, n_embedding; `estimator` and
    `sampler`: these and reach. `udim`, `cddpm`: inner, multipliers, n_blocks, n_groups, head. `a2i3dem`:
    channels, n_blocks, window, head, reach, has_both_axes. `sru3d`: channels, n_convolutions, reach, tile_px.
    `rcan`: channels (one number), n_groups, n_blocks, reduction. `pssr`: channels, n_blocks (of each level).
    `task`: isotropic, to fill gaps; denoise or superres, to restore sections.
    `residual_scale`: deviation of (truth - linear) in deviations of the grey levels; measured if left out.
    `pixel_nm`, `section_thickness_nm`: what an estimator or a sampler is told of sections, and of planes,
    which are as thick; a pixel if left out. `difficulty`: a second head learns how hard each pixel is, and
    the loss heeds it. `features`: a file of layers whose answers a2i3dem compares; fixed random ones if left
    out. `samples`, `steps`: what the checkpoint recommends, and what validation uses.
    """

    kind: Literal[
        "lean", "regression", "udim", "cddpm", "a2i3dem", "sru3d", "rcan", "pssr", "estimator", "sampler"
    ] = "lean"
    task: Task = "isotropic"
    channels: int | tuple[int, ...] | None = None
    n_blocks: int | tuple[int, ...] | None = None
    n_basis: int | None = None
    n_embedding: int | None = None
    inner: int | None = None
    multipliers: tuple[int, ...] | None = None
    n_groups: int | None = None
    head: int | None = None
    window: int | None = None
    reach: int | None = None
    has_both_axes: bool | None = None
    n_convolutions: int | None = None
    reduction: int | None = None
    tile_px: int | None = None
    residual_scale: Length | None = None
    pixel_nm: Length = 10.0
    section_thickness_nm: Length | None = None
    difficulty: bool = False
    features: str | None = None
    samples: Annotated[int, Field(ge=1, le=64)] = 2
    steps: Annotated[int, Field(ge=1, le=1000)] = 8

    @property
    def task_facts(self) -> TaskFacts:
        """What holds for every model of its task."""
        return TASKS[self.task]


OPTIONS = {
    "kind",
    "task",
    "residual_scale",
    "pixel_nm",
    "section_thickness_nm",
    "difficulty",
    "features",
    "samples",
    "steps",
}
SIZE_KEYS = [name for name in NetworkTable.model_fields if name not in OPTIONS]


class TrainTable(Table):
    """[train] how long, how fast, where.

    Training ends after `steps`, after `hours`, or when `patience` validations in a row were no better.
    `from`: a checkpoint to start from; `parts`: what of it is trained. `lr` is 1e-3, and 1e-5 with `from`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    steps: Count = 10_000
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 16
    lr: Annotated[Finite, Field(gt=0, le=1)] | None = None
    lr_decay: Literal["cosine", "none"] = "cosine"
    warmup: Annotated[int, Field(ge=1, le=2**40)] = 200
    ema: Annotated[Finite, Field(ge=0, lt=1)] = 0.999
    clip: Length = 1.0
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    compile: bool = False
    device: str = "cpu"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    hours: Length | None = None
    patience: Annotated[int, Field(ge=1, le=2**20)] | None = None
    validate_every: Count = 500
    save_every: Count = 500
    log_every: Count = 50
    checkpoint: str | None = Field(default=None, alias="from")
    parts: Literal["all", "decoder"] = "all"


class ResultTable(Table):
    """[output] a local folder for all that training makes, and what its checkpoint says of itself."""

    folder: str
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = "model"
    trained_on: Annotated[str, Field(max_length=10_000)] = ""
    licence: Annotated[str, Field(max_length=10_000)] = ""


class TrainFile(Table):
    """A whole training run file."""

    source: Annotated[tuple[TrainingSource, ...], Field(min_length=1, max_length=1024)]
    output: ResultTable
    data: DataTable = DataTable()
    validation: ValidationTable | None = None
    model: NetworkTable = NetworkTable()
    train: TrainTable = TrainTable()

    @model_validator(mode="before")
    @classmethod
    def _one_source_is_a_list_of_one(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("source"), Mapping):
            return {**data, "source": [data["source"]]}
        return data


def load(path: Path) -> TrainFile:
    """The training run file at `path`. Raises ConfigError in one sentence.

    Example:

        >>> from pathlib import Path
        >>> from vemdiffuse_pipe import load_train_file
        >>> load_train_file(Path("train.toml")).train.steps
        1
    """
    return parse(read_tables(path, WHERE_FROM))


def parse(data: Mapping[str, object]) -> TrainFile:
    """A training run file from its tables. Raises ConfigError for the first thing that is wrong."""
    file = check(TrainFile, data)
    _check_together(file)
    return file


def _check_together(file: TrainFile) -> None:
    """Raises ConfigError for keys that contradict each other."""
    if file.data.ratio is not None and file.data.ratios is not None:
        raise ConfigError("data.ratio and data.ratios are both given; one says it all")
    held_back = file.validation
    if held_back is not None and (held_back.region is None) == (held_back.share is None):
        raise ConfigError("validation: give either a region or a share, to say what is held back")
    if held_back is not None and held_back.source >= len(file.source):
        raise ConfigError(
            f"validation.source = {held_back.source}, but the sources are {len(file.source)}, from 0 on"
        )
    if file.train.patience is not None and held_back is None:
        raise ConfigError(
            "train.patience needs a [validation] table: without one nothing says what is better"
        )
    if file.model.task_facts.fills_gaps and any(source.raw for source in file.source):
        raise ConfigError("source.raw goes with sections that are restored: give model.task, or leave it out")
    if file.train.parts != "all" and file.train.checkpoint is None:
        raise ConfigError(f"train.parts = {file.train.parts!r} needs train.from: a checkpoint to fine-tune")
