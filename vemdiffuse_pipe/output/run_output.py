"""The output of a run: opened once, then handed to all that read or write it.

An output says what made it, in the attributes of its group:

    identity, digest     everything that changes a voxel: a run resumes only an output of its own identity
    layout               how it is cut into objects, its format, region and mask
    run_file             as the user stated it, with absolute paths
    measured             what the voxels of its source said: contrast, rejected sections
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike

from pydantic import TypeAdapter

from vemdiffuse_pipe import config
from vemdiffuse_pipe.config import Json, RunFile
from vemdiffuse_pipe.errors import ConfigError, OutputError
from vemdiffuse_pipe.geometry.grey import UNCERTAINTY_STEP
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.models.device import AUTO
from vemdiffuse_pipe.output.choices import with_stored_choices
from vemdiffuse_pipe.output.identity import check_identity
from vemdiffuse_pipe.plan.measured import Measured
from vemdiffuse_pipe.plan.plan import Plan, choose_block, digest
from vemdiffuse_pipe.records.folder import records_of
from vemdiffuse_pipe.storage import StoredSink, create_sink, objects, open_sink, parse_address
from vemdiffuse_pipe.storage.address import Address

MEASURED_FIELDS = ("contrast", "rejected_sections")  # of the identity
DESCRIPTION_VERSION = 1  # that of older outputs, which have no "measured"; nothing else differs


@dataclass(frozen=True)
class RunOutput:
    """An output that is open."""

    url: str
    """Its address as text."""
    sink: StoredSink
    """Its arrays."""
    identity: Mapping[str, Json]
    """Everything that changes a voxel, by name."""
    digest: str
    """16 hexadecimal digits that stand for the identity."""

    @property
    def address(self) -> Address:
        """Where it is."""
        return parse_address(self.url)

    @property
    def records(self) -> Address:
        """The folder of receipts, failures, heartbeats and events."""
        return records_of(self.address)

    @property
    def shards(self) -> BlockGrid:
        """The output cut into shards."""
        return BlockGrid(self.sink.spec.shape, self.sink.spec.shard_shape)

    @cached_property
    def blocks(self) -> BlockGrid:
        """The blocks that its first run was divided into. Raises OutputError as `run_file`."""
        spec = self.sink.spec
        return BlockGrid(spec.shape, choose_block(self.run_file, spec.shape, spec.shard_shape))

    @cached_property
    def run_file(self) -> RunFile:
        """The run file that made it, pointed at where the output is now. Raises OutputError.

        Its work is done on this machine: an output may come from a stranger, and must not say whom to connect
        to, or what batch jobs run.
        """
        text = self.sink.attributes.get("run_file")
        if not isinstance(text, str):
            raise OutputError(
                f"{self.url} does not say which run file made it; it is no output of `vemdiffuse run`"
            )
        try:
            run_file = config.parse_text(text, "it")
        except ConfigError as error:
            raise OutputError(f"the run file that {self.url} was made with is damaged: {error}") from None
        return _on_this_machine(run_file).model_copy(
            update={
                "output": run_file.output.model_copy(update={"url": str(self.address)}),
                "model": with_stored_choices(run_file.model, self.identity),
            }
        )

    @cached_property
    def measured(self) -> Measured:
        """What was measured of its source. Raises OutputError where that is damaged.

        Older outputs have it in their identity, which does not tell it from what the user stated.
        """
        stored = self.sink.attributes.get("measured", self.identity)
        try:
            return _measured(stored)
        except ValueError:
            raise OutputError(
                f"what {self.url} says of its source is damaged; choose another output"
            ) from None

    @property
    def has_measured(self) -> bool:
        """True where measurements are stored apart from the run file; older outputs have them in it."""
        return "measured" in self.sink.attributes


def open_run_output(url: str | PathLike[str]) -> RunOutput:
    """The output at `url`. Raises OutputError where there is none, or it does not say which run made it."""
    return _opened(open_sink(url), str(url))


def find_run_output(plan: Plan) -> RunOutput | None:
    """The output of a plan, where there is one already. Raises OutputError for what is no output of a run."""
    url = plan.run_file.output.url
    return open_run_output(url) if is_output(url) else None


def create_run_output(plan: Plan, output: RunOutput | None = None) -> RunOutput:
    """The output of a plan: created where there is none, opened where it is the plan's own.

    `output`: where it is open already. Many processes may do so at once. Raises OutputError that names what
    differs where the output belongs to another run, started long ago or at the same moment.
    """
    output = output or find_run_output(plan) or _created(plan)
    check_is_of(output, plan)
    return output


def check_is_of(output: RunOutput, plan: Plan, *, is_measured: bool = True) -> None:
    """Raises OutputError, naming what differs, where an output belongs to another run than `plan`'s.

    `is_measured`: whether `plan` has what its voxels say; else those fields are not compared.
    """
    layout = output.sink.attributes.get("layout", {})
    if not isinstance(layout, dict):
        raise OutputError(f"{output.url} does not say how it is cut into objects; choose another output")
    stored, wanted = {**output.identity, **layout}, {**plan.identity(), **_layout(plan)}
    if not is_measured:
        for name in MEASURED_FIELDS:
            stored.pop(name, None)
            wanted.pop(name, None)
    check_identity(output.url, stored, wanted)


def is_output(url: str) -> bool:
    """True where a group's metadata is at `url`: of an output, or of something that must not be changed."""
    address = parse_address(url)
    return any(objects.read_bytes(address / name, 1) is not None for name in ("zarr.json", ".zattrs"))


def _opened(sink: StoredSink, url: str) -> RunOutput:
    identity = sink.attributes.get("identity")
    if not isinstance(identity, dict) or digest(identity) != sink.attributes.get("digest"):
        raise OutputError(f"{url} does not say which run it belongs to; choose another output")
    return RunOutput(url, sink, identity, digest(identity))


def _measured(stored: object) -> Measured:
    """Raises ValueError for what are no measurements."""
    fields = stored if isinstance(stored, dict) else {}
    known = {name: fields[name] for name in MEASURED_FIELDS if fields.get(name) is not None}
    return TypeAdapter(Measured).validate_python(known)


def _created(plan: Plan) -> RunOutput:
    url = plan.run_file.output.url
    try:
        sink = create_sink(
            url,
            plan.output,
            arrays=plan.arrays,
            chunk_shape=plan.chunk_shape,
            shard_shape=plan.shard_shape,
            output_format=plan.run_file.output.format,
            attributes=_description(plan),
            provenance=plan.provenance(),
        )
    except OutputError:
        if not is_output(url):
            raise
        return open_run_output(url)  # another process was faster, and works already
    return _opened(sink, url)


def _description(plan: Plan) -> dict[str, Json]:
    """What the output says about its run: enough to resume, to verify and to understand it."""
    measured = plan.measured
    return {
        "version": DESCRIPTION_VERSION,
        "identity": plan.identity(),
        "digest": plan.digest,
        "layout": _layout(plan),
        "run_file": config.dump(_on_this_machine(plan.run_file)),
        "measured": {
            "contrast": list(measured.contrast) if measured.contrast else None,
            "rejected_sections": list(measured.rejected_sections),
        },
        "uncertainty_step": UNCERTAINTY_STEP,
        "ratio": plan.ratio_in_json,
        "anisotropy": plan.anisotropy,
    }


def _on_this_machine(run_file: RunFile) -> RunFile:
    """The run file without other machines and their GPUs: those of whoever made the output are nobody else's
    concern.
    """
    table, update = run_file.run, dict[str, object]()
    if table.device.startswith("cuda"):
        update["device"] = AUTO
    if table.is_elsewhere or run_file.cluster is not None:
        update |= {"engine": "threads" if table.is_elsewhere else table.engine, "dashboard": False}
    return run_file.model_copy(update={"run": table.model_copy(update=update), "cluster": None})


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
