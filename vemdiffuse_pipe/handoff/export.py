"""An output in the format that another program reads: one array, or a part of it, with all its levels.

    DEST/                    the image itself: its address is DEST
    DEST/handoff.json        what it holds, and which planes were measured
    DEST/.vemdiffuse/        what was exported and how (written first, and once), receipts, events

Copying is lossless unless jpeg is asked for; what a format cannot hold is refused, or stated in nm.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import xxhash

from vemdiffuse_pipe.config import Json
from vemdiffuse_pipe.errors import OutputError, PlanError
from vemdiffuse_pipe.geometry import morton
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.geometry.pyramid import n_levels_until_small
from vemdiffuse_pipe.handoff.export_job import Destination, ExportJob, FirstLevel, TiffDestination
from vemdiffuse_pipe.handoff.export_manifest import (
    coarse_level,
    first_level,
    measured_loss,
    write_export_manifest,
)
from vemdiffuse_pipe.handoff.tiff_file import TiffFile
from vemdiffuse_pipe.output.description import n_missing_blocks
from vemdiffuse_pipe.output.levels import method_of
from vemdiffuse_pipe.output.manifest import Exported, Level
from vemdiffuse_pipe.output.run_output import RunOutput, open_run_output
from vemdiffuse_pipe.plan.plan import digest
from vemdiffuse_pipe.records.events import Listener, Outcome, silent
from vemdiffuse_pipe.records.folder import JOBS, RECORDS, records_of
from vemdiffuse_pipe.records.receipts import read_done
from vemdiffuse_pipe.running.levels.existence import Existence
from vemdiffuse_pipe.running.levels.level_job import LevelJob
from vemdiffuse_pipe.running.levels.pyramid import check_complete, existence_of
from vemdiffuse_pipe.running.local.runner import LocalRunner
from vemdiffuse_pipe.running.runner import Runner, run_job
from vemdiffuse_pipe.storage import images, objects, parse_address
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.encodings import Encoding
from vemdiffuse_pipe.storage.image_levels import ImageLevels

ExportFormat = Literal["precomputed", "n5", "ome-zarr-0.4", "ome-zarr-0.5", "tiff"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = ("precomputed", "n5", "ome-zarr-0.4", "ome-zarr-0.5", "tiff")
ENCODINGS: tuple[Encoding, ...] = ("raw", "jpeg", "png", "compressed_segmentation")
CHUNK: Zyx = (64, 64, 64)
SHARD_BITS = 6  # 64 precomputed chunks a shard
IDENTITY = "export.json"  # in the export's own folder
TIFF_RECORDS = ".vemdiffuse"  # what the folder beside a TIFF is called, after the TIFF's own name


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What is exported, and how."""

    array: str = "em"
    """Which array of the output."""
    box: Box | None = None
    """Which part, voxels of the output; all of it where None."""
    image_format: ExportFormat = "precomputed"
    """The format of the destination."""
    encoding: Encoding = "raw"
    """Of precomputed chunks."""
    is_sharded: bool = True
    """Many chunks in one object, where the format can."""
    n_levels: int | None = None
    """With level 0; else until a section fits one chunk."""
    is_partial: bool = False
    """Copy what is there of an output that is not complete; the rest is 0, and the export says so."""


@dataclass(frozen=True, slots=True)
class Export:
    """What was exported."""

    destination: str
    """Where it went."""
    n_levels: int
    """Complete levels."""
    outcome: Outcome
    """How the last job ended."""
    moved_nm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """How far the corner had to be moved to whole voxels, zyx; 0 but for precomputed."""
    largest_error: int = 0
    """Of jpeg, in grey levels; 0 where lossless."""
    mean_error: float = 0.0
    """The same on average."""


def export(
    output: str,
    destination: str,
    request: ExportRequest,
    *,
    runner: Callable[[], Runner] = LocalRunner,
    listener: Listener = silent,
) -> Export:
    """Copy an array of `output` to `destination`, and make its coarser levels there; rerun to resume.

    `runner`: makes what does the work of a level. Raises OutputError where `output` is not complete or
    `destination` holds something else; PlanError for what the format cannot hold.

    >>> from vemdiffuse_pipe import ExportRequest, export
    >>> export("isotropic.zarr", "isotropic.n5", ExportRequest(image_format="n5")).outcome.is_complete
    True
    """
    run = open_run_output(output)
    if not request.is_partial:
        check_complete(run)
    _check_request(run, request)
    existence = _existence(run, request)
    identity = _identity(run, request, existence)
    if request.image_format == "tiff":
        return _export_tiff(run, destination, request, identity, existence, runner, listener)
    image = _image(run, parse_address(destination), request)
    _claim(image.own_folder, identity)
    image.prepare_level(0)
    copied = replace(existence, start=image.start)
    job = _copy(run, request, FirstLevel(image), identity, image.own_folder, copied)
    outcome = run_job(job, runner(), listener=listener)
    n_wanted = request.n_levels or n_levels_until_small(image.frame.shape, image.chunk_shape)
    levels = [first_level(job, image.level_name(0), image.frame)] if outcome.is_complete else []
    while outcome.is_complete and len(levels) < n_wanted:
        level = _level(image, len(levels), job)
        outcome = run_job(level, runner(), listener=listener)
        if outcome.is_complete:
            levels.append(coarse_level(level))
    z, y, x = images.moved_nm(image.frame) if request.image_format == "precomputed" else (0.0, 0.0, 0.0)
    made = Export(str(image.address), max(1, len(levels)), outcome, (z, y, x))
    return _described(run, request, image.address, tuple(levels), job, made)


def _level(image: ImageLevels, level: int, job: ExportJob) -> LevelJob:
    image.prepare_level(level)
    return LevelJob(
        image=image,
        level=level,
        made_from=job.digest,
        records=image.own_folder / JOBS / f"level-{level}",
        existence=job.existence,
    )


def _described(
    run: RunOutput,
    request: ExportRequest,
    folder: Address,
    levels: tuple[Level, ...],
    job: ExportJob,
    made: Export,
) -> Export:
    """The export, once it is complete with its errors measured, and handoff.json in `folder`."""
    if not made.outcome.is_complete:
        return made
    largest, mean, n_compared = measured_loss(job)
    exported = Exported(
        start=job.box.start,
        stop=job.box.stop,
        encoding=request.encoding,
        moved_nm=made.moved_nm,
        largest_error=largest,
        mean_error=mean,
        n_compared=n_compared,
        is_partial=request.is_partial and n_missing_blocks(run) > 0,
    )
    write_export_manifest(run, folder, request.image_format, levels, exported, job)
    return replace(made, largest_error=largest, mean_error=mean)


def _export_tiff(
    run: RunOutput,
    destination: str,
    request: ExportRequest,
    identity: dict[str, Json],
    existence: Existence,
    runner: Callable[[], Runner],
    listener: Listener,
) -> Export:
    address = parse_address(destination)
    if not address.is_local:
        raise PlanError(f"{destination}: a TIFF is written to a disk only; export it there, and upload it")
    file = TiffFile(address.path, _part_frame(run, request))
    own_folder = parse_address(f"{address.path}{TIFF_RECORDS}")
    _claim_file(own_folder, address, identity)
    file.create()
    job = _copy(run, request, TiffDestination(file), identity, own_folder, existence)
    made = Export(destination, 1, run_job(job, runner(), listener=listener))
    levels = (first_level(job, f"../{address.path.name}", file.frame),) if made.outcome.is_complete else ()
    return _described(run, request, own_folder, levels, job, made)


def _existence(run: RunOutput, request: ExportRequest) -> Existence:
    """Which voxels of the part exist; of a partial export those of blocks that are done."""
    existence = existence_of(run)
    outside = existence.outside
    if request.is_partial:
        outside = outside | ~read_done(run.records, run.digest, run.shards)
    part = request.box or run.sink.spec.frame.box
    return replace(existence, outside=outside, offset=part.start)


def _copy(
    run: RunOutput,
    request: ExportRequest,
    destination: Destination,
    identity: dict[str, Json],
    own_folder: Address,
    existence: Existence,
) -> ExportJob:
    part = request.box or run.sink.spec.frame.box
    return ExportJob(
        source=run.url,
        array=request.array,
        box=part,
        destination=destination,
        digest=digest(identity),
        records=own_folder / JOBS / "copy",
        existence=existence,
    )


def _check_request(run: RunOutput, request: ExportRequest) -> None:
    if request.array not in run.sink.arrays:
        raise PlanError(
            f"{run.url} has no array {request.array}; it has {', '.join(run.sink.arrays)}: --array names one"
        )
    if request.box is not None and request.box.intersect(run.sink.spec.frame.box) != request.box:
        raise PlanError(
            f"region {request.box} is not inside {run.url}, whose voxels are {run.sink.spec.frame.box}"
        )
    if request.image_format != "precomputed" and request.encoding != "raw":
        raise PlanError(
            f"{request.image_format} has no encoding {request.encoding}; leave --encoding out, or export as "
            "precomputed"
        )
    if request.encoding == "jpeg" and request.array not in ("em", "sample"):
        raise PlanError(
            f"jpeg changes values, and those of {request.array} are measured on; use raw or png for it"
        )
    if request.encoding == "compressed_segmentation" and method_of(request.array) != "mode":
        raise PlanError(
            f"compressed_segmentation holds labels; {request.array} has grey levels: use raw or png"
        )


def _image(run: RunOutput, destination: Address, request: ExportRequest) -> ImageLevels:
    """The image at `destination`."""
    frame = _part_frame(run, request)
    assert request.image_format != "tiff"
    z, y, x = (min(c, n) for c, n in zip(CHUNK, frame.shape, strict=True))
    is_labels = request.encoding == "compressed_segmentation"
    return ImageLevels(
        address=destination,
        own_folder=records_of(destination),
        name=request.array,
        output_format=request.image_format,
        frame=frame,
        chunk_shape=(z, y, x),
        shard_shape=_shard_shape(request, frame.shape, (z, y, x)),
        dtype="uint64" if is_labels else "uint8",
        encoding=request.encoding,
        attributes={"identity": dict(run.identity)},
    )


def _part_frame(run: RunOutput, request: ExportRequest) -> Frame:
    frame = run.sink.spec.frame
    return frame if request.box is None else frame.cropped(request.box)


def _shard_shape(request: ExportRequest, shape: Zyx, chunk: Zyx) -> Zyx:
    if not request.is_sharded or request.image_format in ("n5", "ome-zarr-0.4"):
        return chunk
    counts = images.chunk_counts(shape, chunk)
    if request.image_format == "precomputed":
        covered = morton.covered(counts, min(SHARD_BITS, morton.n_bits(counts)))
    else:
        covered = (1, min(8, counts[1]), min(8, counts[2]))
    z, y, x = (n * c for n, c in zip(covered, chunk, strict=True))
    return z, y, x


def _identity(run: RunOutput, request: ExportRequest, existence: Existence) -> dict[str, Json]:
    """All that a voxel of the export depends on, and how it is cut: an export resumes only its own."""
    part = request.box or run.sink.spec.frame.box
    missing = xxhash.xxh3_64_hexdigest(existence.outside.bits) if request.is_partial else ""
    return {
        **({"blocks that are missing": missing} if missing else {}),
        "run": run.digest,
        "array": request.array,
        "region": [list(part.start), list(part.stop)],
        "format": request.image_format,
        "encoding": request.encoding,
        "sharded": request.is_sharded,
    }


def _claim_file(own_folder: Address, file: Address, identity: dict[str, Json]) -> None:
    """Take the place of a TIFF. Raises OutputError where there is one that no export is writing."""
    if file.path.exists() and objects.read_bytes(own_folder / IDENTITY) is None:
        raise OutputError(
            f"{file} exists and nothing is ever written over; choose another destination, or remove it"
        )
    _claim(own_folder, identity)


def _claim(own_folder: Address, identity: dict[str, Json]) -> None:
    """Take the destination for this export, in one act. Raises OutputError where it is another's."""
    place = own_folder / IDENTITY
    if objects.read_bytes(place) is None:
        found = sorted(name for name in objects.list_names(own_folder.parent) if name != own_folder.name)
        if found and own_folder.name == RECORDS:
            raise OutputError(
                f"{own_folder.parent} is not empty (it holds {found[0]}) and nothing is ever written over; "
                "choose another destination, or remove what is there"
            )
        objects.write_bytes_if_absent(place, json.dumps(identity, indent=1).encode())
    stored = json.loads(objects.read_bytes(place) or b"{}")
    if stored != identity:
        differing = [name for name in identity if stored.get(name) != identity[name]]
        changes = "; ".join(f"{name} {stored.get(name)} -> {identity[name]}" for name in differing)
        raise OutputError(
            f"{own_folder.parent} belongs to another export: {changes}; choose another destination"
        )
