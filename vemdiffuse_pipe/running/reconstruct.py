"""The library's front door: a run file, or a source and an output, become an isotropic volume."""

from __future__ import annotations

import time
import tomllib
from typing import TYPE_CHECKING

from vemdiffuse_pipe import config
from vemdiffuse_pipe.cluster.walltime import deadline_of, stated_walltime_s
from vemdiffuse_pipe.config import (
    BadSections,
    Grid,
    NanPolicy,
    OutputFormat,
    Policy,
    Precision,
    RunFile,
    RunTable,
)
from vemdiffuse_pipe.errors import ConfigError, OutputError
from vemdiffuse_pipe.geometry.box import Zyx
from vemdiffuse_pipe.models.card import AUTO
from vemdiffuse_pipe.output.measurements import plan_of, with_measurements
from vemdiffuse_pipe.output.preparation import open_run_model, prepare
from vemdiffuse_pipe.output.run_output import (
    RunOutput,
    check_is_of,
    create_run_output,
    find_run_output,
    open_run_output,
)
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.records import failures
from vemdiffuse_pipe.records.events import Listener, Outcome, silent
from vemdiffuse_pipe.records.heartbeats import read_heartbeats, remove_heartbeats
from vemdiffuse_pipe.records.parts import Part
from vemdiffuse_pipe.running.preconditions import Where, check_run
from vemdiffuse_pipe.running.progress import Progress
from vemdiffuse_pipe.storage import Address, objects, parse_address
from vemdiffuse_pipe.volume import Source

if TYPE_CHECKING:
    from vemdiffuse_pipe.models.protocol import Model

__all__ = ["prepare", "reconstruct", "retry", "run"]

MAX_RUN_FILE = 1 << 20

Nm = tuple[float, float, float]


def run(
    run_file: RunFile,
    *,
    listener: Listener = silent,
    max_blocks: int | None = None,
    part: Part | None = None,
    walltime_s: float | None = None,
) -> Outcome:
    """Do what a run file says; rerun to resume. `max_blocks`: start no more than so many.

    `part`: process this part, then unfinished blocks of other parts; in this process alone, beside any number
    of others. `walltime_s`: seconds from the start of this process to its end, where no scheduler says; else,
    in a batch job, what [cluster] states. No block is started that would not finish in time.

    Raises InputError where nothing can be started, also for an output of another run; StorageFullError when
    the output has no room left. What is done stays done.

    Example:

        >>> from pathlib import Path
        >>> from vemdiffuse_pipe import load_run_file, run
        >>> run(load_run_file(Path("linear.toml"))).is_complete
        True
    """
    from vemdiffuse_pipe.running.execution import Limits, run_checked_plan  # imports torch

    run_file = _with_chosen_model(run_file)
    source, plan = prepare(run_file)
    check_run(plan, Where.THIS_PROCESS if part else Where.ENGINE)
    output = find_run_output(plan)
    plan = with_measurements(plan, source, output)
    deadline = deadline_of(stated_walltime_s(run_file.cluster) if walltime_s is None else walltime_s)
    limits = Limits(max_blocks, deadline=deadline)
    return run_checked_plan(plan, source, part=part, output=output, listener=listener, limits=limits)


def reconstruct(
    source: str,
    output: str,
    *,
    voxel_size_nm: Nm | None = None,
    level: str | None = None,
    channel: int | None = None,
    series: int | None = None,
    pattern: str | None = None,
    window: tuple[float, float] | None = None,
    nan: NanPolicy = "fail",
    section_thickness_nm: float | None = None,
    missing: Policy = "fail",
    corrupt: Policy = "fail",
    bad_sections: BadSections = "refuse",
    model: str = "default",
    ratio: int | None = None,
    grid: Grid = "whole",
    seed: int = 0,
    samples: int | None = None,
    steps: int | None = None,
    precision: Precision = "auto",
    block_shape: Zyx | None = None,
    workers: int = 1,
    device: str = "auto",
    output_format: OutputFormat = "ome-zarr-0.5",
    listener: Listener = silent,
) -> Outcome:
    """Make the volume at `source` isotropic, at `output`; rerun to resume.

    The run file that says the same is written beside the output, as `<output>.toml`. Raises what `run`
    raises.

    Example:

        >>> from vemdiffuse_pipe import reconstruct
        >>> size = (50, 4.6, 4.6)
        >>> outcome = reconstruct("stack.tif", "isotropic.zarr", voxel_size_nm=size, model="linear")
        >>> outcome.n_done, outcome.n_blocks
        (1, 1)
    """
    voxels = {"voxel_size_nm": voxel_size_nm, "level": level, "channel": channel, "window": window}
    files = {"series": series, "pattern": pattern, "section_thickness_nm": section_thickness_nm}
    policies = {"nan": nan, "missing": missing, "corrupt": corrupt, "bad_sections": bad_sections}
    draws = {"seed": seed, "samples": samples, "steps": steps, "precision": precision}
    engine = "local" if workers > 1 else "threads"
    tables: dict[str, object] = {
        "source": {"url": source, **voxels, **files, **policies},
        "output": {"url": output, "format": output_format},
        "model": {"name": model, "ratio": ratio, "grid": grid, **draws},
        "run": {"block_shape": block_shape, "workers": workers, "engine": engine, "device": device},
    }
    return _reconstruct(config.parse(tables), listener)


def _reconstruct(run_file: RunFile, listener: Listener) -> Outcome:
    from vemdiffuse_pipe.running.execution import run_checked_plan  # imports torch

    source, plan = prepare(_with_chosen_model(run_file))
    check_run(plan, Where.ENGINE)
    plan, model, output = _started(plan, source)
    return run_checked_plan(plan, source, model=model, output=output, listener=listener)


def _with_chosen_model(run_file: RunFile) -> RunFile:
    """The run file with a model in the place of "auto"; itself where it names one."""
    if run_file.model.name != AUTO:
        return run_file
    from vemdiffuse_pipe.holdout.auto import with_chosen_model  # imports torch

    return with_chosen_model(run_file)


def _started(plan: Plan, source: Source) -> tuple[Plan, Model, RunOutput]:
    """The plan with what its voxels say, its model and its output; the run file is beside the output."""
    address = parse_address(f"{plan.run_file.output.url}.toml")
    output = find_run_output(plan)
    if output is None:
        _check_run_file(address, plan)  # before anything is made
    plan = with_measurements(plan, source, output)
    model = open_run_model(plan)  # before anything is written
    output = create_run_output(plan, output)  # before the run file: the output may belong to another run
    if objects.read_bytes(address, 1) is None:  # what an earlier version wrote, or a user, stays
        objects.write_bytes_atomically(address, config.dump(plan.run_file).encode())
    return plan, model, output


def _check_run_file(address: Address, plan: Plan) -> None:
    """Raises OutputError where something else is in the place of the run file: it may be a user's own."""
    data = objects.read_bytes(address, MAX_RUN_FILE)
    if data is None:
        return
    try:
        stored = config.parse(tomllib.loads(data.decode()))
    except (ConfigError, ValueError):
        stored = None
    if stored is None or _asked(stored, plan) != _asked(plan.run_file, plan):
        raise OutputError(
            f"{address}, where the run file of this output goes, holds something else already; it is not "
            "overwritten: choose another output, or move that file away"
        )


def _asked(run_file: RunFile, plan: Plan) -> RunFile:
    """The run file without how the work is done, and which grid where both are one.

    Older versions wrote what they measured into it, so that contrast and rejected sections are left out too.
    """
    measured: dict[str, object] = {"contrast": None, "rejected_sections": ()}
    grid = {} if plan.gaps.r.denominator > 1 else {"grid": "whole"}
    same = {
        "source": run_file.source.model_copy(update=measured),
        "model": run_file.model.model_copy(update=grid),
        "run": RunTable(),
        "cluster": None,
    }
    return run_file.model_copy(update=same)


def retry(output: str | RunOutput, *, listener: Listener = silent) -> Outcome:
    """Retry the blocks of an output that are marked failed, and all that is missing; raises as `run`.

    Example:

        >>> from vemdiffuse_pipe import retry
        >>> retry("isotropic.zarr").failed_blocks
        ()
    """
    from vemdiffuse_pipe.running.execution import run_checked_plan  # imports torch

    output = output if isinstance(output, RunOutput) else open_run_output(output)
    source, plan = prepare(output.run_file)
    plan = plan_of(output, plan)
    check_run(plan, Where.ENGINE)
    model = open_run_model(plan)  # before anything is written
    check_is_of(output, plan)  # before marks are released: the output must be this run's
    _forget_failures(output, plan)
    return run_checked_plan(plan, source, model=model, output=output, listener=listener)


def _forget_failures(output: RunOutput, plan: Plan) -> None:
    progress = Progress(output.records, output.digest, plan.blocks, plan.shards)
    failures.release(output.records, progress.all_marks())
    crashed = read_heartbeats(output.records, time.time()).crashed
    remove_heartbeats(output.records, crashed)  # else their blocks are marked failed again
