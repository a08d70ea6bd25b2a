"""The library's front door: a run file, or a source and an output, become an isotropic volume."""

from __future__ import annotations

import time
import tomllib
from typing import TYPE_CHECKING, Literal

from vemdiffuse_pipe import config
from vemdiffuse_pipe.config import BadSections, Grid, OutputFormat, Policy, RunFile, RunTable
from vemdiffuse_pipe.errors import ConfigError, OutputError
from vemdiffuse_pipe.geometry.box import Zyx
from vemdiffuse_pipe.output.opening import (
    is_output,
    open_output,
    open_run_model,
    prepare,
    stored_run_file,
    with_measurements,
)
from vemdiffuse_pipe.plan.plan import Plan, digest
from vemdiffuse_pipe.records import failures
from vemdiffuse_pipe.records.events import Listener, Outcome, silent
from vemdiffuse_pipe.records.journal import forget, read_heartbeats
from vemdiffuse_pipe.records.parts import Part
from vemdiffuse_pipe.running.progress import Progress
from vemdiffuse_pipe.storage import Address, objects, open_sink, parse_address
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
    """Do what a run file says; running again resumes. `max_blocks`: take up no more than so many.

    `part`: this part of it first, then what others have left of theirs; in this process alone, without dask,
    beside any number of others. `walltime_s`: seconds from the beginning of this process to its end, where no
    scheduler says; else, in a batch job, what [cluster] states. No block is begun that would last longer.

    Raises InputError where nothing can be started, also for an output of another run; StorageFullError when
    the output has no room left. What is done stays done.
    """
    source, plan = prepare(run_file)
    plan = with_measurements(plan, source)
    if part is None:
        from vemdiffuse_pipe.running.execution import run_plan  # imports dask

        return run_plan(plan, source, listener=listener, max_blocks=max_blocks)
    from vemdiffuse_pipe.cluster.walltime import deadline_of, stated_walltime_s
    from vemdiffuse_pipe.running.local.worker import run_part

    deadline = deadline_of(stated_walltime_s(run_file.cluster) if walltime_s is None else walltime_s)
    return run_part(plan, source, part, listener=listener, max_blocks=max_blocks, deadline=deadline)


def reconstruct(
    source: str,
    output: str,
    *,
    voxel_size_nm: Nm | None = None,
    level: str | None = None,
    channel: int | None = None,
    window: tuple[float, float] | None = None,
    missing: Policy = "fail",
    corrupt: Policy = "fail",
    bad_sections: BadSections = "refuse",
    model: str = "default",
    ratio: int | None = None,
    grid: Grid = "whole",
    seed: int = 0,
    samples: int | None = None,
    steps: int | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    block_shape: Zyx | None = None,
    workers: int = 1,
    output_format: OutputFormat = "ome-zarr-0.5",
    listener: Listener = silent,
) -> Outcome:
    """Make the volume at `source` isotropic, at `output`; running again resumes.

    The run file that says the same is written beside the output, as `<output>.toml`. Raises what `run`
    raises.
    """
    run_file = config.parse(
        {
            "source": {
                "url": source,
                "voxel_size_nm": voxel_size_nm,
                "level": level,
                "channel": channel,
                "window": window,
                "missing": missing,
                "corrupt": corrupt,
                "bad_sections": bad_sections,
            },
            "output": {"url": output, "format": output_format},
            "model": {
                "name": model,
                "ratio": ratio,
                "grid": grid,
                "seed": seed,
                "samples": samples,
                "steps": steps,
                "precision": precision,
            },
            "run": {"block_shape": block_shape, "workers": workers, "engine": _engine(workers)},
        }
    )
    from vemdiffuse_pipe.running.execution import run_plan

    opened, plan = prepare(run_file)
    plan, filler = _begun(plan, opened)
    return run_plan(plan, opened, model=filler, listener=listener)


def _begun(plan: Plan, source: Source) -> tuple[Plan, Model]:
    """The plan with what its voxels say, and its model; the output is there, its run file beside it."""
    address = parse_address(f"{plan.run_file.output.url}.toml")
    if not is_output(plan.run_file.output.url):
        _check_run_file(address, plan)  # before anything is made
    plan = with_measurements(plan, source)
    filler = open_run_model(plan)  # before anything is written
    open_output(plan)  # before the run file is written: it may belong to another run
    _check_run_file(address, plan)
    objects.write_bytes_atomically(address, config.dump(plan.run_file).encode())
    return plan, filler


def _check_run_file(address: Address, plan: Plan) -> None:
    """Raises OutputError where something else is in the place of the run file: it may be a user's own."""
    there = objects.read_bytes(address, MAX_RUN_FILE)
    if there is None:
        return
    try:
        found = config.parse(tomllib.loads(there.decode()))
    except (ConfigError, ValueError):
        found = None
    if found is None or _asked(found, plan) != _asked(plan.run_file, plan):
        raise OutputError(
            f"{address}, where the run file of this output goes, holds something else already; it is not "
            "written over: choose another output, or move that file away"
        )


def _asked(run_file: RunFile, plan: Plan) -> RunFile:
    """The run file without how the work is done, what was measured, and which grid where both are one."""
    measured: dict[str, object] = {"contrast": None, "rejected_sections": ()}
    grid = {} if plan.gaps.r.denominator > 1 else {"grid": "whole"}
    same = {
        "source": run_file.source.model_copy(update=measured),
        "model": run_file.model.model_copy(update=grid),
        "run": RunTable(),
        "cluster": None,
    }
    return run_file.model_copy(update=same)


def retry(output: str, *, listener: Listener = silent) -> Outcome:
    """Take up the blocks of an output that were set aside, and all else that is missing; raises as `run`."""
    from vemdiffuse_pipe.running.execution import run_plan

    source, plan = prepare(stored_run_file(open_sink(output), output))
    plan = with_measurements(plan, source)
    model = open_run_model(plan)  # before anything is written
    open_output(plan)  # before marks are released: the output must be this run's
    _absolve(plan)
    return run_plan(plan, source, model=model, listener=listener)


def _absolve(plan: Plan) -> None:
    address = parse_address(plan.run_file.output.url)
    progress = Progress(address, digest(plan.identity()), plan.blocks, plan.shards)
    failures.release(address, progress.all_marks())
    forget(address, read_heartbeats(address, time.time()).dead)  # else what processes died of is blamed again


def _engine(workers: int) -> Literal["threads", "local"]:
    return "local" if workers > 1 else "threads"
