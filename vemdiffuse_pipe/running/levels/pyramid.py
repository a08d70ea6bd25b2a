"""Pyramids of an output: coarser levels of each of its images, so that it can be looked at as a whole.

    em/0 --mean--> em/1 --mean--> em/2 ...        uncertainty by maximum, labels by mode

Levels are made one after the other, each by a job of its own with receipts, so that parts, kills and reruns
are as harmless as in a run. An image names a level once it is complete.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from vemdiffuse_pipe.errors import OutputError
from vemdiffuse_pipe.geometry.plane_groups import Provenance
from vemdiffuse_pipe.geometry.pyramid import MAX_LEVELS, n_levels_until_small
from vemdiffuse_pipe.output.description import n_missing_blocks, write_manifest
from vemdiffuse_pipe.output.levels import image_of, level_records, takes_levels
from vemdiffuse_pipe.output.mask import read_outside
from vemdiffuse_pipe.output.run_output import RunOutput, open_run_output
from vemdiffuse_pipe.records.events import Listener, Outcome, silent
from vemdiffuse_pipe.running.levels.existence import Existence
from vemdiffuse_pipe.running.levels.level_job import LevelJob
from vemdiffuse_pipe.running.local.runner import LocalRunner
from vemdiffuse_pipe.running.runner import Runner, run_job
from vemdiffuse_pipe.storage import images, layout, objects
from vemdiffuse_pipe.storage.image_levels import ImageLevels


@dataclass(frozen=True, slots=True)
class Pyramid:
    """What was made."""

    levels: Mapping[str, int]
    """Complete levels of each array, level 0 included."""
    outcome: Outcome | None
    """How the last job ended; None where every level was there before."""

    @property
    def exit_code(self) -> int:
        """0 where all levels are complete, or a drained job will complete them when it is rerun."""
        return 0 if self.outcome is None else self.outcome.exit_code


def pyramid(
    output: str,
    *,
    n_levels: int | None = None,
    runner: Callable[[], Runner] = LocalRunner,
    listener: Listener = silent,
) -> Pyramid:
    """Make the coarser levels of every image of `output`; rerun to resume.

    `n_levels`: with level 0; else until a section fits one chunk. `runner`: makes what does the work of a
    level. Raises OutputError where there is no complete output, or its format takes no levels.

    >>> from vemdiffuse_pipe import pyramid
    >>> pyramid("isotropic.zarr", n_levels=2).levels["em"]
    2
    """
    run = open_run_output(output)
    _check_takes_levels(run)
    check_complete(run)
    made: dict[str, int] = {}
    outcome: Outcome | None = None
    for name in run.sink.arrays:
        image = image_of(run, name)
        wanted = n_levels or n_levels_until_small(image.frame.shape, image.chunk_shape)
        for level in range(1, min(wanted, MAX_LEVELS)):
            outcome = run_job(level_job(run, image, level), runner(), listener=listener)
            if not outcome.is_complete:
                return Pyramid({**made, name: level}, outcome)
        made[name] = wanted
        if name == run.sink.arrays[0]:
            publish_root(run, image, wanted)
    write_manifest(run)
    return Pyramid(made, outcome)


def level_job(run: RunOutput, image: ImageLevels, level: int) -> LevelJob:
    """The job that makes `level`, prepared: what its voxels need around them is there."""
    image.prepare_level(level)
    return LevelJob(
        image=image,
        level=level,
        made_from=run.digest,
        records=level_records(run, image.name, level),
        existence=existence_of(run),
    )


def publish_root(run: RunOutput, image: ImageLevels, n_levels: int) -> None:
    """Let the output's own group name the levels of `image`, so that other programs open the root.

    One object, replaced as a whole; what else it says stays. Raises OutputError, DataError, TransientError.
    """
    version: layout.Version = "0.5" if image.output_format == "ome-zarr-0.5" else "0.4"
    place = run.address / ("zarr.json" if version == "0.5" else ".zattrs")
    stored = json.loads(objects.read_bytes(place) or b"{}")
    frames = [image.level_frame(level) for level in range(n_levels)]
    renewed = layout.root_document(stored, image.name, frames, version)
    if renewed != stored:
        objects.write_bytes_atomically(place, images.document(renewed))


def existence_of(run: RunOutput) -> Existence:
    """Which voxels of an output exist."""
    outside = read_outside(run.records, run.shards)
    return Existence(np.asarray(run.sink.provenance != Provenance.MISSING), outside)


def _check_takes_levels(run: RunOutput) -> None:
    if not takes_levels(run):
        raise OutputError(
            f"{run.url} is written as {run.sink.spec.format}; pyramids are made of OME-Zarr outputs: "
            "`vemdiffuse export` writes other formats with all levels"
        )


def check_complete(run: RunOutput) -> None:
    """Raises OutputError where blocks are missing."""
    if n_missing := n_missing_blocks(run):
        raise OutputError(
            f"{run.url} lacks {n_missing:,} of {run.blocks.n_blocks:,} blocks; complete it first: rerun it, "
            f"or `vemdiffuse retry {run.url}` where blocks are marked failed"
        )
