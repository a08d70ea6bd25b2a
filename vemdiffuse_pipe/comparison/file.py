"""The file of a comparison: the ground truth, how it is degraded, and the methods to compare with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from vemdiffuse_pipe.config import (
    Count,
    Length,
    ModelTable,
    PlaneThickness,
    Precision,
    RunTable,
    SamplerName,
    Table,
    check,
    read_tables,
)
from vemdiffuse_pipe.evaluation.degradation import Degradation

Draws = Literal["independent", "pairs"]
Ratios = Annotated[tuple[Annotated[int, Field(ge=2, le=1024)], ...], Field(min_length=1, max_length=64)]


class TruthTable(Table):
    """[truth] an isotropic volume and the part of it that counts."""

    url: str
    voxel_size_nm: tuple[Length, Length, Length] | None = None
    level: str | None = None
    window: tuple[float, float] | None = None
    planes: tuple[Annotated[int, Field(ge=0)], Count]
    middle_px: Count = 192

    @property
    def pixel_nm(self) -> float:
        """Side of a pixel; 10 nm where it is not stated."""
        return 10.0 if self.voxel_size_nm is None else (self.voxel_size_nm[1] + self.voxel_size_nm[2]) / 2

    @model_validator(mode="after")
    def _planes_ascend(self) -> TruthTable:
        if self.planes[0] >= self.planes[1]:
            raise ValueError("planes are [first, stop], and stop lies above first")
        return self


class CompareTable(Table):
    """[compare] every table that is made: one for each ratio and each way of making sections."""

    ratios: Ratios
    degradations: Annotated[tuple[Degradation, ...], Field(min_length=1, max_length=3)] = ("dropped",)
    results: str


class MethodTable(Table):
    """[[method]] one model and how it is driven; each number of samples becomes a row.

    `draws`: "independent" draws are what theory speaks of, "pairs" are what the pipeline draws. `ratios`:
    the only ones of the comparison at which it has rows, for a model that is made for one.
    """

    name: Annotated[str, Field(min_length=1, max_length=60)]
    model: str
    samples: Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(min_length=1)] = (1,)
    draws: Annotated[tuple[Draws, ...], Field(min_length=1)] = ("independent",)
    sampler: SamplerName | None = None
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    ratios: Ratios | None = None
    seed: Annotated[int, Field(ge=0, lt=2**62)] = 0
    precision: Precision = "float32"
    tile_px: Annotated[int, Field(ge=16, le=8192)] | None = None
    overlap_px: Annotated[int, Field(ge=0, le=4096)] | None = None

    def table(
        self, ratio: int, *, samples: int | None, seed: int, planes: PlaneThickness = "section"
    ) -> ModelTable:
        """The model table of a run that draws so, and whose planes are so thick."""
        return ModelTable(
            name=self.model,
            ratio=ratio,
            plane_thickness=planes,
            samples=samples,
            sampler=self.sampler,
            steps=self.steps,
            seed=seed,
            precision=self.precision,
            tile_px=self.tile_px,
            overlap_px=self.overlap_px,
        )


class ComparisonFile(Table):
    """A whole comparison. Raises ConfigError where two methods have one name."""

    truth: TruthTable
    compare: CompareTable
    method: Annotated[tuple[MethodTable, ...], Field(min_length=1, max_length=256)]
    run: RunTable = RunTable()

    @model_validator(mode="after")
    def _names_differ(self) -> ComparisonFile:
        names = [method.name for method in self.method]
        if len(set(names)) < len(names):
            raise ValueError("two methods have the same name, and rows are known by it")
        return self


def load_comparison(path: Path) -> ComparisonFile:
    """The comparison at `path`. Raises ConfigError in one sentence.

    Example:

        >>> from pathlib import Path
        >>> from vemdiffuse_pipe import load_comparison
        >>> load_comparison(Path("compare.toml")).truth.url
        'truth.tif'
    """
    return check(ComparisonFile, read_tables(path, "workflows/compare_fib25.toml is one to start from"))
