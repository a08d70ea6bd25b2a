"""Options and output that commands share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, TypeVar, cast

import click

from vemdiffuse_pipe.config import NanPolicy, RunFile

if TYPE_CHECKING:
    from vemdiffuse_pipe.running.runner import Runner

Command = TypeVar("Command", bound=Callable[..., object])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
run_file_argument = click.argument("file", type=click.Path(path_type=Path))


engine_option = click.option(
    "--engine",
    metavar="NAME",
    help="Where workers come from: threads, local, slurm, lsf, pbs, sge, or tcp://HOST:PORT of a dask "
    "cluster; else as the run file says.",
)


window_option = click.option(
    "--window",
    nargs=2,
    type=float,
    metavar="LOW HIGH",
    help="Intensity window LOW HIGH mapped to 0-255, for any type but uint8.",
)
channel_option = click.option(
    "--channel", type=int, metavar="N", help="Channel to use, from 0, where there are more."
)
series_option = click.option(
    "--series", type=int, metavar="N", help="Image to use, from 0, where a TIFF file has more."
)
pattern_option = click.option(
    "--pattern",
    metavar="NAME",
    help='Names of a folder\'s sections: "s_{z}_ch0.tif"; {z} is their number, * is anything.',
)
level_option = click.option("--level", metavar="NAME", help="Level to use; the finest if left out.")
voxel_size_option = click.option(
    "--voxel-size",
    "voxel_size_nm",
    nargs=3,
    type=float,
    metavar="Z Y X",
    help="In nanometres: which level is meant, or the size itself where the volume states none.",
)


missing_option = click.option(
    "--missing",
    type=click.Choice(["fail", "fill", "bridge"]),
    default="fail",
    show_default=True,
    help="An absent chunk: fail its blocks, fill it, or skip its sections and interpolate across them.",
)
corrupt_option = click.option(
    "--corrupt",
    type=click.Choice(["fail", "fill", "bridge"]),
    default="fail",
    show_default=True,
    help="The same for a chunk that cannot be decoded.",
)


bad_sections_option = click.option(
    "--bad-sections",
    type=click.Choice(["refuse", "bridge", "keep"]),
    default="refuse",
    show_default=True,
    help="Black, constant or duplicated sections: name them and stop, bridge them, or do not look for them.",
)


nan_option = click.option(
    "--nan",
    type=click.Choice(["fail", "fill"]),
    default="fail",
    show_default=True,
    help="A voxel that is not a number: fail its blocks, or read it as black.",
)


part_option = click.option(
    "--part",
    metavar="I/N",
    help="Process part I of N, then unfinished blocks of other parts; auto: as the job array says.",
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=2,
    show_default=True,
    metavar="N",
    help="Blocks at once.",
)


def part_runner_options(command: Command) -> Command:
    """Options of commands that work block by block in this process."""
    for option in (workers_option, part_option):
        command = option(command)
    return command


def part_runner(part: str | None, workers: int) -> Callable[[], Runner]:
    """What makes a runner for each job of a command. Raises ConfigError for a part that is none."""
    from vemdiffuse_pipe.records.parts import parse_part
    from vemdiffuse_pipe.running.local.runner import LocalRunner

    chosen = None if part is None else parse_part(part, os.environ)
    return lambda: LocalRunner(chosen, n_workers=workers)


class SourceChoice(TypedDict):
    """What the options of `source_options` say."""

    voxel_size_nm: tuple[float, float, float] | None
    level: str | None
    channel: int | None
    series: int | None
    pattern: str | None
    window: tuple[float, float] | None
    nan: NanPolicy


def source_options(command: Command) -> Command:
    """Options that choose voxels of a volume and map them to grey levels: `choice` of the command."""

    @wraps(command)
    def with_choice(*arguments: object, **parameters: object) -> object:
        choice = {name: parameters.pop(name) for name in SourceChoice.__annotations__}
        return command(*arguments, choice=choice, **parameters)

    packed = cast(Command, with_choice)
    for option in (
        nan_option,
        window_option,
        pattern_option,
        series_option,
        channel_option,
        level_option,
        voxel_size_option,
    ):
        packed = option(packed)
    return packed


def warn_unchecked_limit(run_file: RunFile) -> None:
    """Warn on stderr of a limit in the run file that is not checked here."""
    from vemdiffuse_pipe.pricing.run_price import limit_not_checked

    if warning := limit_not_checked(run_file):
        click.echo(f"vemdiffuse: {warning}", err=True)


def print_json(data: Mapping[str, object]) -> None:
    """Print one JSON object."""
    click.echo(json.dumps(data, indent=2))


def print_table(rows: Mapping[str, str]) -> None:
    """Print names and values in two columns; a value of more lines stays in its column."""
    for line in table_lines(rows):
        click.echo(line)


def table_lines(rows: Mapping[str, str]) -> list[str]:
    """The lines that `print_table` prints."""
    width = max(map(len, rows))
    lines = []
    for name, value in rows.items():
        first, *more = value.split("\n")
        lines += [f"{name:{width}}  {first}", *(f"{'':{width}}  {line}" for line in more)]
    return lines
