"""The run file: TOML in, frozen and checked values out. An unknown key is an error that names the nearest."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar, get_args

import tomlkit
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from vemdiffuse_pipe import texts
from vemdiffuse_pipe.errors import ConfigError

MAX_FILE = 1 << 20  # bytes of TOML

Finite = Annotated[float, Field(allow_inf_nan=False)]
Length = Annotated[Finite, Field(gt=0)]
Amount = Annotated[Finite, Field(ge=0)]
Count = Annotated[int, Field(ge=1, le=2**40)]
Zyx = tuple[Count, Count, Count]
Voxel = Annotated[int, Field(ge=0, le=2**40)]
Corners = tuple[tuple[Voxel, Voxel, Voxel], tuple[Voxel, Voxel, Voxel]]
CornersNm = tuple[tuple[Finite, Finite, Finite], tuple[Finite, Finite, Finite]]
Policy = Literal["fail", "fill", "bridge"]
NanPolicy = Literal["fail", "fill"]
BadSections = Literal["refuse", "bridge", "keep"]
Task = Literal["isotropic", "denoise", "superres"]
Grid = Literal["whole", "exact"]
Precision = Literal["auto", "float32", "bfloat16"]
PlaneThickness = Literal["section", "thin"]
SectionUse = Literal["keep", "estimate"]
ArrayName = Literal["em", "uncertainty", "sample", "sample_spread"]
SamplerName = Literal["dpmpp-2m", "heun", "ancestral", "ancestral-rescaled"]
OutputFormat = Literal["ome-zarr-0.5", "ome-zarr-0.4", "n5", "precomputed"]
Scheduler = Literal["slurm", "lsf", "pbs", "sge"]

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

SCHEDULERS: tuple[Scheduler, ...] = get_args(Scheduler)


def _engine(value: str) -> str:
    if value in ("threads", "local", *SCHEDULERS) or re.fullmatch(r"(tcp|tls)://[^\s/@]+:\d{1,5}", value):
        return value
    raise ValueError(
        f"threads, local, {', '.join(SCHEDULERS)}, or the address of a dask scheduler (tcp://host:8786) is "
        "needed"
    )


Word = Annotated[str, AfterValidator(texts.word)]
Walltime = Annotated[str, AfterValidator(texts.walltime)]
File = TypeVar("File", bound=BaseModel)


class Table(BaseModel):
    """Keys and values of a file: an unknown key is an error, and nothing changes once it is checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class AssumeTable(Table):
    """[source.assume] what the source is said to be: enough to plan without it, checked once it is open."""

    shape: Zyx
    voxel_size_nm: tuple[Length, Length, Length]
    chunk_shape: Zyx
    dtype: Literal["uint8", "int8", "uint16", "int16", "float16", "float32"] = "uint8"


class SourceTable(Table):
    """[source] where the volume is, how its numbers become grey levels, and which part of it is wanted.

    `region`: [first, stop] in its voxels; `region_nm`: in its world. Voxels are those of the whole run.
    `section_thickness_nm`: what a section averages over; the distance of sections if left out.
    """

    url: str
    voxel_size_nm: tuple[Length, Length, Length] | None = None
    section_thickness_nm: Length | None = None
    level: str | None = None
    channel: Annotated[int, Field(ge=0, le=2**20)] | None = None
    series: Annotated[int, Field(ge=0, le=2**20)] | None = None
    pattern: str | None = None
    window: tuple[Finite, Finite] | None = None
    contrast: tuple[Finite, Length] | None = None
    missing: Policy = "fail"
    corrupt: Policy = "fail"
    nan: NanPolicy = "fail"
    bad_sections: BadSections = "refuse"
    rejected_sections: tuple[Voxel, ...] = ()
    region: Corners | None = None
    region_nm: CornersNm | None = None
    assume: AssumeTable | None = None


class MaskTable(Table):
    """[mask] a volume that says which part of the world is wanted: where it is not 0."""

    url: str
    level: str | None = None
    voxel_size_nm: tuple[Length, Length, Length] | None = None


class OutputTable(Table):
    """[output] where the result goes, what is written, and how it is cut into objects.

    `arrays`: em, the best estimate; uncertainty, its deviation; sample, one coherent draw; sample_spread, the
    deviation of all draws. What the model gives without drawing samples for itself if left out.

    `pyramid`: coarser levels are made once all blocks are done; it changes no voxel of the finest.
    """

    url: str
    format: OutputFormat = "ome-zarr-0.5"
    arrays: tuple[ArrayName, ...] | None = None
    chunk_shape: Zyx | None = None
    shard_shape: Zyx | None = None
    pyramid: bool = False

    @model_validator(mode="after")
    def _takes_levels(self) -> Self:
        if self.pyramid and self.format not in ("ome-zarr-0.5", "ome-zarr-0.4"):
            raise ValueError(
                f"pyramid = true needs an OME-Zarr format, not {self.format}; leave it out and use "
                "`vemdiffuse export`, which makes levels in every format"
            )
        return self


class ModelTable(Table):
    """[model] what fills the gaps, or restores sections. Every key here changes voxels.

    `name`: a model, the path of a checkpoint, or auto: the best of `candidates` by a self-test of the volume.
    `grid`: whole, planes at fractions of the section distance, sections kept; exact, planes as far apart as
    pixels. `plane_thickness`: planes as thick as sections, as the microscope would have cut them there, or
    thin. `sections`: keep, planes at sections are those sections, bit for bit; estimate, they are estimated
    as all others are. `core_px`: what a tile of an exact network contributes. `tile_px`, `overlap_px`:
    blended tiles.
    """

    task: Task = "isotropic"
    name: str = "default"
    candidates: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)] | None = None
    ratio: Annotated[int, Field(ge=1, le=1024)] | None = None
    grid: Grid = "whole"
    plane_thickness: PlaneThickness = "section"
    sections: SectionUse = "keep"
    samples: Annotated[int, Field(ge=1, le=64)] | None = None
    sampler: SamplerName | None = None
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    precision: Precision = "auto"
    core_px: Annotated[int, Field(ge=8, le=8192)] | None = None
    tile_px: Annotated[int, Field(ge=16, le=8192)] | None = None
    overlap_px: Annotated[int, Field(ge=0, le=4096)] | None = None


class RunTable(Table):
    """[run] how the work is done. No key here changes a voxel.

    `device`: of torch, or auto: CUDA where a process finds a GPU, else the CPU.
    """

    block_shape: Zyx | None = None
    workers: Annotated[int, Field(ge=1, le=4096)] = 1
    engine: Annotated[str, AfterValidator(_engine)] = "threads"
    threads: Annotated[int, Field(ge=1, le=256)] | None = None
    tile_batch: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = "auto"
    capture: Literal["auto", "compile", "graphs", "off"] = "auto"
    device: str = "auto"
    max_memory_gb: Length | None = None
    dashboard: bool = False

    @property
    def scheduler(self) -> Scheduler | None:
        """The batch scheduler that starts the workers, if one does."""
        return next((one for one in SCHEDULERS if one == self.engine), None)

    @property
    def is_remote(self) -> bool:
        """True for the address of a dask cluster that somebody else started."""
        return "://" in self.engine

    @property
    def is_elsewhere(self) -> bool:
        """True where workers may be on other machines: what this one has says nothing of them."""
        return self.is_remote or self.scheduler is not None


class ClusterTable(Table):
    """[cluster] what each job is given where a batch scheduler starts the workers. No key changes a voxel."""

    queue: Word | None = None
    account: Word | None = None
    walltime: Walltime = "04:00:00"
    memory_gb: Length
    gpus: Annotated[int, Field(ge=0, le=64)] = 1
    cores: Annotated[int, Field(ge=1, le=4096)] = 4
    min_jobs: Annotated[int, Field(ge=0, le=10_000)] = 1
    max_jobs: Annotated[int, Field(ge=1, le=10_000)] = 1
    extra_directives: tuple[Annotated[str, AfterValidator(texts.directive)], ...] = ()
    prologue: tuple[Annotated[str, AfterValidator(texts.line)], ...] = ()
    interface: Word | None = None

    @property
    def workers_a_job(self) -> int:
        """One a GPU, and one where there is none."""
        return max(1, self.gpus)

    @property
    def walltime_s(self) -> int:
        """Seconds after which a job is ended."""
        hours, minutes, seconds = map(int, self.walltime.split(":"))
        return (hours * 60 + minutes) * 60 + seconds

    @model_validator(mode="after")
    def _a_minute_at_least(self) -> Self:
        if self.walltime_s < 60:
            raise ValueError(f"walltime {self.walltime} is under a minute, in which no job does anything")
        return self

    @model_validator(mode="after")
    def _no_fewer_jobs_than_the_fewest(self) -> Self:
        if self.min_jobs > self.max_jobs:
            raise ValueError(
                f"min_jobs {self.min_jobs} is more than max_jobs {self.max_jobs}; change one of them"
            )
        return self


class PriceTable(Table):
    """[price] what things cost where the run will be, and what it may cost at most. No key changes a voxel.

    `tflops`: what one GPU is said to do of this work, in 1e12 operations a second, where none is measured.
    """

    gpu_hour: Amount | None = None
    core_hour: Amount | None = None
    storage_gb_month: Amount | None = None
    egress_gb: Amount | None = None
    requests_million: Amount | None = None
    currency: Annotated[str, Field(max_length=8)] = "USD"
    tflops: Length | None = None
    max_gpu_hours: Length | None = None
    max_core_hours: Length | None = None


class RunFile(Table):
    """A whole run file."""

    source: SourceTable
    output: OutputTable
    model: ModelTable = ModelTable()
    run: RunTable = RunTable()
    mask: MaskTable | None = None
    price: PriceTable = PriceTable()
    cluster: ClusterTable | None = None

    @model_validator(mode="before")
    @classmethod
    def _tables_are_tables(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise ValueError("a run file is a TOML table")
        return data


def load(path: Path) -> RunFile:
    """The run file at `path`. Raises ConfigError in one sentence that names the line's key.

    Example:

        >>> from pathlib import Path
        >>> from vemdiffuse_pipe import load_run_file
        >>> load_run_file(Path("linear.toml")).model.name
        'linear'
    """
    return parse(read_tables(path, "`vemdiffuse init SOURCE OUTPUT` prints one to start from"))


def read_tables(path: Path, where_from: str) -> dict[str, object]:
    """What a TOML file holds, unchecked. `where_from`: how to come by such a file. Raises ConfigError."""
    try:
        return _tables(_text(path), str(path))
    except FileNotFoundError:
        raise ConfigError(f"no run file at {path}; {where_from}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read ({type(error).__name__}); a TOML text file is needed"
        ) from None


def _text(path: Path) -> str:
    if path.exists() and not path.is_file():  # to open a pipe would wait for whoever writes to it
        raise ConfigError(f"{path} is no regular file; a TOML text file is needed")
    with path.open("rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise ConfigError(f"{path} is larger than {MAX_FILE >> 20} MB; a run file is a few kilobytes")
    return data.decode()


def parse_text(text: str, where: str) -> RunFile:
    """A run file from its TOML, which `where` holds. Raises ConfigError for the first thing that is wrong."""
    return parse(_tables(text, where))


def _tables(text: str, where: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{where} is nested too deeply to be a run file") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is not TOML: {error}") from None
    except ValueError:
        raise ConfigError(f"{where} holds a number of too many digits") from None


def parse(data: Mapping[str, object]) -> RunFile:
    """A run file from its tables. Raises ConfigError for the first thing that is wrong."""
    return check(RunFile, data)


def check(kind: type[File], data: Mapping[str, object]) -> File:
    """What the tables of a file say, as `kind`. Raises ConfigError for the first thing that is wrong."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_sentence(kind, error)) from None


def with_engine(run_file: RunFile, engine: str | None) -> RunFile:
    """The run file with another engine, where one is given. Raises ConfigError."""
    if engine is None:
        return run_file
    data = run_file.model_dump(exclude_unset=True)  # what was not stated stays so
    return parse({**data, "run": {**data.get("run", {}), "engine": engine}})


def _sentence(kind: type[BaseModel], error: ValidationError) -> str:
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a misspelt one may be missing
    where = ".".join(str(part) for part in first["loc"])[:80]
    if first["type"] == "extra_forbidden":
        return f"unknown key {where}; {_nearest(kind, first['loc'])}"
    if first["type"] == "missing":
        return _too_few(first["loc"]) or f"{where} is missing from the run file"
    if first["type"] != "value_error":
        return f"{where} = {_shown(first.get('input'))!r}: {first['msg'].lower()}"
    said = first["msg"].removeprefix("Value error, ")  # in our words
    is_of_table = isinstance(first.get("input"), Mapping)  # which is not shown: the words name its keys
    return f"{where}: {said}" if is_of_table else f"{where} = {_shown(first.get('input'))!r}: {said}"


def _too_few(loc: tuple[int | str, ...]) -> str:
    """What is said where a list ends too early; '' where something else is missing."""
    *parts, last = loc
    if not isinstance(last, int):
        return ""
    key = ".".join(part for part in parts if isinstance(part, str))
    which = f" in its part {parts[-1] + 1}" if isinstance(parts[-1], int) else ""
    return f"{key} has too few numbers{which}: {last} of at least {last + 1}"


def _shown(value: object) -> str:
    try:
        text = str(value)[:80]
        secret = texts.SECRET.search(text)
        return f"{text[: secret.end()]}..." if secret else text
    except (ValueError, RecursionError):  # digits or brackets without end
        return f"{type(value).__name__} too large to be shown"


def _nearest(kind: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    table: Any = kind
    for part in (part for part in loc[:-1] if isinstance(part, str)):  # a number counts tables of one name
        table = _table_of(table.model_fields[part].annotation)
    known = list(table.model_fields)
    near = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


def _table_of(annotation: Any) -> Any:
    """The table that an annotation is about: itself, or what its tuple is made of."""
    return annotation if isinstance(annotation, type) else _table_of(get_args(annotation)[0])


def dump(run_file: RunFile) -> str:
    """The run file as TOML; `parse(tomllib.loads(dump(f))) == f`. Keys that were left open are left out."""
    return tomlkit.dumps(run_file.model_dump(exclude_none=True, mode="json"))
