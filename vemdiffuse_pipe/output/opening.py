"""From a run file to what is open: the source, the plan, the model, the output."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vemdiffuse_pipe import config
from vemdiffuse_pipe.cluster.memory import share_arenas
from vemdiffuse_pipe.config import Json, RunFile, SourceTable
from vemdiffuse_pipe.errors import ConfigError, OutputError
from vemdiffuse_pipe.geometry.grey import UNCERTAINTY_STEP
from vemdiffuse_pipe.models.card import BUILTIN, find_card, shipped_models
from vemdiffuse_pipe.output.identity import check_identity
from vemdiffuse_pipe.plan.assumed import assumed_spec, check_assumed
from vemdiffuse_pipe.plan.estimate import CACHE_BYTES
from vemdiffuse_pipe.plan.plan import Plan, digest, make_plan
from vemdiffuse_pipe.storage import (
    StoredSink,
    create_sink,
    objects,
    open_sink,
    open_source,
    parse_address,
    source_address,
)
from vemdiffuse_pipe.storage.retry import RetryPolicy, with_retries
from vemdiffuse_pipe.storage.sink import check_can_be_written
from vemdiffuse_pipe.survey.contrast import measure_contrast
from vemdiffuse_pipe.survey.lost_sections import with_sections_that_are_data
from vemdiffuse_pipe.volume import Source

if TYPE_CHECKING:
    from vemdiffuse_pipe.models.protocol import Model

DESCRIPTION_VERSION = 1


def prepare(run_file: RunFile) -> tuple[Source, Plan]:
    """The open source and the plan of a run file. Metadata only: no voxel is read.

    Local paths are made absolute, so that what is stored in the output means the same from anywhere.
    Raises InputError where the run file, the volume and the model do not fit together.
    """
    run_file = with_absolute_paths(run_file)
    check_can_be_written(run_file.output.url)
    _check_apart(run_file)
    source = open_run_source(run_file)
    check_assumed(run_file.source, source.spec)
    return source, make_plan(run_file, source.spec, find_card(run_file.model.name, run_file.model.task))


def prepare_offline(run_file: RunFile) -> Plan:
    """The plan of a run file whose source is taken to be what it assumes: no store is asked anything.

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


def open_run_source(run_file: RunFile) -> Source:
    """The source of a run. Raises SourceError or TransientError."""
    share_arenas()  # before the first voxel is read: what other arenas were given, they keep
    table = run_file.source
    return open_source(
        table.url,
        voxel_size_nm=table.voxel_size_nm,
        level=table.level,
        channel=table.channel,
        window=table.window,
        missing=table.missing,
        corrupt=table.corrupt,
        cache_bytes=CACHE_BYTES,
    )


def open_run_model(plan: Plan, device: str | None = None) -> Model:
    """The model of a run. Raises ConfigError for its device; ModelError, also where it is no longer the one
    that was planned with. `device`: another than the run file's.
    """
    from vemdiffuse_pipe.models.checkpoint import load_model  # imports torch

    table, sampling = plan.run_file, plan.sampling
    return load_model(
        table.model.name,
        steps=sampling.steps,
        contrast=plan.contrast,
        precision=sampling.precision,
        device=device or table.run.device,
        sampler=sampling.sampler,
        task=table.model.task,
    )


def with_contrast(plan: Plan, source: Source) -> Plan:
    """The plan with the contrast of the volume, measured where a model needs it and nobody stated it."""
    if not plan.card.needs_contrast or plan.contrast is not None:
        return plan
    measured = with_retries(
        lambda: measure_contrast(source, plan.gaps.rejected), RetryPolicy(), lambda reason: None
    )
    return replace(plan, contrast=measured)


def with_measurements(plan: Plan, source: Source) -> Plan:
    """The plan with what only the voxels say: sections that are given up, and the contrast.

    An output that is there was begun with answers; they are taken from it where the run file is the same.
    """
    table, begun_with = plan.run_file.source, _begun_with(plan)
    if begun_with is not None:
        asked = {"rejected_sections": table.rejected_sections, "contrast": table.contrast}
        if begun_with.model_copy(update=asked) == table:
            run_file = plan.run_file.model_copy(update={"source": begun_with})
            return make_plan(run_file, plan.source, plan.card)
    return with_contrast(with_sections_that_are_data(plan, source), source)


def _begun_with(plan: Plan) -> SourceTable | None:
    url = plan.run_file.output.url
    try:
        return stored_run_file(open_sink(url), url).source if is_output(url) else None
    except OutputError:
        return None  # whatever it is, `open_output` will say so


def open_output(plan: Plan) -> StoredSink:
    """The output of a plan: created where there is none, continued where it is the plan's own.

    Many processes may do so at once. Raises OutputError that names what differs where the output belongs to
    another run, begun long ago or at the same moment.
    """
    url = plan.run_file.output.url
    sink = open_sink(url) if is_output(url) else _create(plan)
    identity, _ = identity_of(sink, url)
    layout = sink.attributes.get("layout", {})
    if not isinstance(layout, dict):
        raise OutputError(f"{url} does not say how it is cut into objects; choose another output")
    check_identity(url, {**identity, **layout}, {**plan.identity(), **_layout(plan)})
    return sink


def is_output(url: str) -> bool:
    """True where a group's metadata is at `url`: of an output, or of something that must not be touched."""
    address = parse_address(url)
    return any(objects.read_bytes(address / name, 1) is not None for name in ("zarr.json", ".zattrs"))


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
    place = address.path if address.is_local else Path.cwd() / str(address).rstrip("/").rsplit("/", 1)[-1]
    return place.with_name(f"{place.name}{suffix}")


def log_folder(run_file: RunFile) -> Path:
    """Where batch jobs of a run leave what they print."""
    return beside_output(run_file, ".logs")


def identity_of(sink: StoredSink, output: str) -> tuple[dict[str, Json], str]:
    """Identity and digest of the run that an output belongs to. Raises OutputError where it does not say."""
    identity = sink.attributes.get("identity")
    if not isinstance(identity, dict) or digest(identity) != sink.attributes.get("digest"):
        raise OutputError(f"{output} does not say which run it belongs to; choose another output")
    return identity, digest(identity)


def stored_run_file(sink: StoredSink, output: str | os.PathLike[str]) -> RunFile:
    """The run file that an output was begun with, pointed at where the output is now. Raises OutputError.

    Its work is done here: an output may come from a stranger, and must not say whom to connect to, or what
    batch jobs run.
    """
    text = sink.attributes.get("run_file")
    if not isinstance(text, str):
        raise OutputError(
            f"{output} does not say which run file made it; it is no output of `vemdiffuse run`"
        )
    try:
        run_file = config.parse_text(text, "it")
    except ConfigError as error:
        raise OutputError(f"the run file that {output} was begun with is damaged: {error}") from None
    return _done_here(run_file).model_copy(
        update={"output": run_file.output.model_copy(update={"url": str(parse_address(output))})}
    )


def _done_here(run_file: RunFile) -> RunFile:
    if not run_file.run.is_elsewhere and run_file.cluster is None:
        return run_file
    engine = "threads" if run_file.run.is_elsewhere else run_file.run.engine
    run = run_file.run.model_copy(update={"engine": engine})
    return run_file.model_copy(update={"run": run, "cluster": None})


def _create(plan: Plan) -> StoredSink:
    try:
        return _created(plan)
    except OutputError:
        if not is_output(plan.run_file.output.url):
            raise
        return open_sink(plan.run_file.output.url)  # another process was faster, and works already


def _created(plan: Plan) -> StoredSink:
    return create_sink(
        plan.run_file.output.url,
        plan.output,
        arrays=plan.arrays,
        chunk_shape=plan.chunk_shape,
        shard_shape=plan.shard_shape,
        output_format=plan.run_file.output.format,
        attributes=_description(plan),
        provenance=plan.provenance(),
    )


def _description(plan: Plan) -> dict[str, Json]:
    """What the output says about its run: enough to go on, to verify and to understand it."""
    identity = plan.identity()
    return {
        "version": DESCRIPTION_VERSION,
        "identity": identity,
        "digest": digest(identity),
        "layout": _layout(plan),
        "run_file": config.dump(_with_stated_contrast(plan)),
        "uncertainty_step": UNCERTAINTY_STEP,
        "ratio": plan.ratio_in_json,
        "anisotropy": plan.anisotropy,
    }


def _with_stated_contrast(plan: Plan) -> RunFile:
    """The run file with the contrast that was measured: `verify` and `retry` need not measure it again."""
    table = plan.run_file.source.model_copy(update={"contrast": plan.contrast})
    return _done_here(plan.run_file.model_copy(update={"source": table}))


def _layout(plan: Plan) -> dict[str, Json]:
    """What an output cannot change while it is written, though it changes no voxel."""
    part, mask = plan.part, plan.run_file.mask
    return {
        **({"mask": mask.model_dump(exclude_none=True, mode="json")} if mask else {}),
        **({"region": [list(part.start), list(part.stop)]} if plan.is_part else {}),
        "format": plan.run_file.output.format,
        "chunk_shape": list(plan.chunk_shape),
        "shard_shape": list(plan.shard_shape),
    }
