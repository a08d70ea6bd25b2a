"""The run file: TOML in, frozen and checked values out. An unknown key is an error that names the nearest."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vemdiffuse_pipe.errors import ConfigError

LARGEST_FILE = 1 << 20  # bytes of TOML

Finite = Annotated[float, Field(allow_inf_nan=False)]
Length = Annotated[Finite, Field(gt=0)]
Count = Annotated[int, Field(ge=1, le=2**40)]
Zyx = tuple[Count, Count, Count]
Policy = Literal["fail", "fill", "bridge"]
BadSections = Literal["refuse", "bridge", "keep"]
Task = Literal["isotropic", "denoise", "superres"]
OutputFormat = Literal["ome-zarr-0.5", "ome-zarr-0.4", "n5", "precomputed"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class SourceTable(_Table):
    """[source] where the volume is, and how its numbers become grey levels."""

    url: str
    voxel_size_nm: tuple[Length, Length, Length] | None = None
    level: str | None = None
    channel: Annotated[int, Field(ge=0, le=2**20)] | None = None
    window: tuple[Finite, Finite] | None = None
    contrast: tuple[Finite, Length] | None = None
    missing: Policy = "fail"
    corrupt: Policy = "fail"
    bad_sections: BadSections = "refuse"
    rejected_sections: tuple[Annotated[int, Field(ge=0, le=2**40)], ...] = ()


class OutputTable(_Table):
    """[output] where the result goes, and how it is cut into objects."""

    url: str
    format: OutputFormat = "ome-zarr-0.5"
    chunk_shape: Zyx | None = None
    shard_shape: Zyx | None = None


class ModelTable(_Table):
    """[model] what fills the gaps, or restores sections. Every key here changes voxels."""

    task: Task = "isotropic"
    name: str = "default"
    ratio: Annotated[int, Field(ge=1, le=1024)] | None = None
    samples: Annotated[int, Field(ge=1, le=64)] | None = None
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    tile_px: Annotated[int, Field(ge=16, le=8192)] | None = None
    overlap_px: Annotated[int, Field(ge=0, le=4096)] | None = None


class RunTable(_Table):
    """[run] how the work is done. No key here changes a voxel."""

    block_shape: Zyx | None = None
    workers: Annotated[int, Field(ge=1, le=4096)] = 1
    engine: Literal["threads", "local"] = "threads"
    threads: Annotated[int, Field(ge=1, le=256)] | None = None
    tile_batch: Annotated[int, Field(ge=1, le=4096)] = 1
    device: str = "cpu"
    max_memory_gb: Length | None = None


class RunFile(_Table):
    """A whole run file."""

    source: SourceTable
    output: OutputTable
    model: ModelTable = ModelTable()
    run: RunTable = RunTable()

    @model_validator(mode="before")
    @classmethod
    def _tables_are_tables(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise ValueError("a run file is a TOML table")
        return data


def load(path: Path) -> RunFile:
    """The run file at `path`. Raises ConfigError in one sentence that names the line's key."""
    try:
        return parse_text(_text(path), str(path))
    except FileNotFoundError:
        raise ConfigError(
            f"no run file at {path}; `vemdiffuse init SOURCE OUTPUT` prints one to start from"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read ({type(error).__name__}); a TOML text file is needed"
        ) from None


def _text(path: Path) -> str:
    if path.exists() and not path.is_file():  # to open a pipe would wait for whoever writes to it
        raise ConfigError(f"{path} is no regular file; a TOML text file is needed")
    with path.open("rb") as file:
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ConfigError(f"{path} is larger than {LARGEST_FILE >> 20} MB; a run file is a few kilobytes")
    return data.decode()


def parse_text(text: str, where: str) -> RunFile:
    """A run file from its TOML, which `where` holds. Raises ConfigError for the first thing that is wrong."""
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{where} is nested too deeply to be a run file") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is not TOML: {error}") from None
    except ValueError:
        raise ConfigError(f"{where} holds a number of too many digits") from None
    return parse(data)


def parse(data: Mapping[str, object]) -> RunFile:
    """A run file from its tables. Raises ConfigError for the first thing that is wrong."""
    try:
        return RunFile.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a misspelt one may be missing
    where = ".".join(str(part) for part in first["loc"])[:80]
    if first["type"] == "extra_forbidden":
        return f"unknown key {where}; {_nearest(first['loc'])}"
    if first["type"] == "missing":
        return f"{where} is missing from the run file"
    return f"{where} = {_shown(first.get('input'))!r}: {first['msg'].lower()}"


def _shown(value: object) -> str:
    try:
        return str(value)[:80]
    except (ValueError, RecursionError):  # digits or brackets without end
        return f"{type(value).__name__} too large to be shown"


def _nearest(loc: tuple[int | str, ...]) -> str:
    table: Any = RunFile
    for part in loc[:-1]:
        table = table.model_fields[str(part)].annotation
    known = list(table.model_fields)
    near = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


def dump(run_file: RunFile) -> str:
    """The run file as TOML; `parse(tomllib.loads(dump(f))) == f`. Keys that were left open are left out."""
    lines: list[str] = []
    for name, table in run_file.model_dump(exclude_none=True).items():
        lines += [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items()), ""]
    return "\n".join(lines)


def _toml(value: object) -> str:
    if isinstance(value, str):
        escaped = "".join(c if c >= " " and c not in '"\\\x7f' else f"\\u{ord(c):04x}" for c in value)
        return f'"{escaped}"'
    if isinstance(value, tuple | list):
        return f"[{', '.join(_toml(v) for v in value)}]"
    return repr(value)
