"""From a run file to a plan: the source is opened, paths are made absolute, the model is found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vemdiffuse_pipe.cluster.memory import share_arenas
from vemdiffuse_pipe.config import RunFile
from vemdiffuse_pipe.errors import ConfigError, OutputError
from vemdiffuse_pipe.models.card import AUTO, BUILTIN, find_card, shipped_models
from vemdiffuse_pipe.models.device import device_here
from vemdiffuse_pipe.output.choices import with_device_here
from vemdiffuse_pipe.plan.assumed import assumed_spec, check_assumed
from vemdiffuse_pipe.plan.plan import Plan, make_plan
from vemdiffuse_pipe.storage import open_source, parse_address, source_address
from vemdiffuse_pipe.storage.sink import check_can_be_written
from vemdiffuse_pipe.volume import Source

if TYPE_CHECKING:
    from vemdiffuse_pipe.models.protocol import Model


def prepare(run_file: RunFile) -> tuple[Source, Plan]:
    """The open source and the plan of a run file. Metadata only: no voxel is read.

    Local paths are made absolute, so that what is stored in the output means the same from anywhere.
    Raises InputError where the run file, the volume and the model do not fit together.
    """
    run_file = with_device_here(with_absolute_paths(run_file))
    check_can_be_written(run_file.output.url)
    _check_apart(run_file)
    _check_candidates(run_file)
    source = open_run_source(run_file)
    check_assumed(run_file.source, source.spec)
    return source, make_plan(run_file, source.spec, find_card(run_file.model.name, run_file.model.task))


def plan_run(run_file: RunFile) -> Plan:
    """The plan of a run file: what it would do, before anything is computed. Metadata only.

    Raises InputError where the run file, the volume and the model do not fit together.

    Example:

        >>> from pathlib import Path
        >>> from vemdiffuse_pipe import load_run_file, plan_run
        >>> plan_run(load_run_file(Path("linear.toml"))).output.shape
        (23, 48, 40)
    """
    return prepare(run_file)[1]


def prepare_offline(run_file: RunFile) -> Plan:
    """The plan of a run file whose source is not opened, but taken to be what [source.assume] states.

    Raises InputError where the run file, what it assumes and the model do not fit together.
    """
    run_file = with_absolute_paths(run_file)
    return make_plan(
        run_file, assumed_spec(run_file.source), find_card(run_file.model.name, run_file.model.task)
    )


def _check_apart(run_file: RunFile) -> None:
    """Raises OutputError where the output would be written around its own source."""
    source, output = run_file.source.url, run_file.output.url
    if f"{source}/".startswith(f"{output}/"):
        raise OutputError(f"{output} holds the source {source}; choose another place for the output")


def _check_candidates(run_file: RunFile) -> None:
    """Raises ConfigError for candidates among which nobody chooses."""
    if run_file.model.candidates is not None and run_file.model.name != AUTO:
        raise ConfigError(
            f'model.candidates go with name = "{AUTO}", not with {run_file.model.name[:80]}; '
            "leave one of them out"
        )


def open_run_source(run_file: RunFile) -> Source:
    """The source of a run. Raises SourceError or TransientError."""
    share_arenas()  # before the first voxel is read: other arenas keep the memory that they have
    table = run_file.source
    return open_source(
        table.url,
        voxel_size_nm=table.voxel_size_nm,
        level=table.level,
        channel=table.channel,
        series=table.series,
        pattern=table.pattern,
        window=table.window,
        missing=table.missing,
        corrupt=table.corrupt,
        nan=table.nan,
    )


def open_run_model(plan: Plan, device: str | None = None) -> Model:
    """The model of a run. Raises ConfigError for its device; ModelError, also where it is not the one that
    was planned with. `device`: another than the run file's.
    """
    from vemdiffuse_pipe.models.checkpoint import load_model  # imports torch
    from vemdiffuse_pipe.models.protocol import Sectioning

    table, sampling = plan.run_file, plan.sampling
    return load_model(
        table.model.name,
        steps=sampling.steps,
        contrast=plan.contrast,
        precision=sampling.precision,
        device=device_here(device or table.run.device),
        sampler=sampling.sampler,
        task=table.model.task,
        capture=table.run.capture,
        sectioning=Sectioning(*plan.sectioning_nm),
    )


def with_absolute_paths(run_file: RunFile) -> RunFile:
    """The run file with paths that do not depend on the working directory, and names as addresses."""
    model, mask = run_file.model, run_file.mask
    if mask is not None:
        mask = mask.model_copy(update={"url": str(source_address(mask.url))})
    path = os.path.expanduser(model.name)  # noqa: PTH111 (Path's own raises for ~nobody,
    known = (*BUILTIN[model.task], *shipped_models())
    if model.name not in known and os.path.exists(path):  # noqa: PTH110 and for long names)
        model = model.model_copy(update={"name": str(Path(path).absolute())})
    return run_file.model_copy(
        update={
            "source": run_file.source.model_copy(update={"url": str(source_address(run_file.source.url))}),
            "output": run_file.output.model_copy(update={"url": str(parse_address(run_file.output.url))}),
            "model": model,
            "mask": mask,
        }
    )


def beside_output(run_file: RunFile, suffix: str) -> Path:
    """A local path beside the output, which has its name; in the current folder for an output elsewhere."""
    address = parse_address(run_file.output.url)
    path = address.path if address.is_local else Path.cwd() / str(address).rstrip("/").rsplit("/", 1)[-1]
    return path.with_name(f"{path.name}{suffix}")


def log_folder(run_file: RunFile) -> Path:
    """The folder for what batch jobs of a run print."""
    return beside_output(run_file, ".logs")
