"""The job that fills an output: sections are read, the planes of a block rendered, whole shards written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vemdiffuse_pipe.cluster.hosts import device_name
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.models.capture import capture_state
from vemdiffuse_pipe.models.device import AUTO
from vemdiffuse_pipe.models.protocol import Model
from vemdiffuse_pipe.output.description import write_manifest
from vemdiffuse_pipe.output.preparation import open_run_model, open_run_source
from vemdiffuse_pipe.output.provenance import write_filled_provenance
from vemdiffuse_pipe.output.run_output import RunOutput, open_run_output
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.plan.text import task_text
from vemdiffuse_pipe.records.events import Listener, PlanesDone
from vemdiffuse_pipe.records.folder import records_of
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.render.block import Hardware, RenderCounts, render_block
from vemdiffuse_pipe.running.job import Arrays, Checksums, Loaded
from vemdiffuse_pipe.running.stages import write_shards
from vemdiffuse_pipe.storage import open_sink, parse_address
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.survey.kept_sections import read_kept
from vemdiffuse_pipe.volume import Sink, Source, Voxels

SECTIONS = "sections"  # the one array that a block is rendered from


@dataclass(frozen=True)
class RenderJob:
    """A plan, to be carried out. What is open stays in this process: workers elsewhere open their own."""

    plan: Plan
    """What is rendered."""
    hardware: Hardware = Hardware()  # noqa: RUF009 (frozen)
    """The device and the threads of each worker."""
    source: Source | None = field(default=None, compare=False)
    """The plan's source, where it is open already."""
    model: Model | None = field(default=None, compare=False)
    """The plan's model, where it is open already."""
    output: RunOutput | None = field(default=None, compare=False)
    """The plan's output, where it is open already."""

    verb = "render"

    @property
    def title(self) -> str:
        """What is made of the sections; on a second line the device, where this machine decides it."""
        if self.device != AUTO or self.plan.run_file.run.is_elsewhere:
            return task_text(self.plan)
        return f"{task_text(self.plan)}\ndevice: {device_name(self.device)}"

    @property
    def digest(self) -> str:
        """The digest of the plan's identity."""
        return self.plan.digest

    @property
    def blocks(self) -> BlockGrid:
        """The blocks of the plan."""
        return self.plan.blocks

    @property
    def shards(self) -> BlockGrid:
        """The shards of the plan."""
        return self.plan.shards

    @property
    def by_columns(self) -> bool:
        """As the plan says."""
        return self.plan.by_columns

    @property
    def records(self) -> Address:
        """The records of the output itself."""
        return records_of(parse_address(self.plan.run_file.output.url))

    @property
    def device(self) -> str:
        """What is rendered on."""
        return self.hardware.device

    def open(self, emit: Listener) -> RenderStages:
        """Source, model and output of this process. Raises InputError or TransientError."""
        return RenderStages(
            plan=self.plan,
            hardware=self.hardware,
            source=self.source or open_run_source(self.plan.run_file),
            model=self.model or open_run_model(self.plan),
            sink=self.output.sink if self.output else open_sink(self.plan.run_file.output.url),
            emit=emit,
        )

    def finish(self) -> None:
        """Bring the provenance of the output to what the receipts say was filled, and describe the output."""
        output = self.output or open_run_output(self.plan.run_file.output.url)
        write_filled_provenance(output, self.plan)
        write_manifest(output)

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "source": None, "model": None, "output": None}


@dataclass(frozen=True, slots=True)
class RenderStages:
    """The stages of a RenderJob in one process."""

    plan: Plan
    """What is rendered."""
    hardware: Hardware
    """Device and threads."""
    source: Source
    """Where sections are read."""
    model: Model
    """What fills the gaps."""
    sink: Sink
    """Where shards are written."""
    emit: Listener
    """Receives PlanesDone."""

    def read(self, work: Work) -> Loaded:
        """The sections that the block needs: (z, y, x) uint8 of `plan.source_box`, rejected ones 0."""
        source_box, holes = self.plan.source_box(work.output_box), list[Box]()
        voxels = read_kept(self.source, source_box, self.plan.gaps.rejected, holes.append)
        filled = sorted({section for hole in holes for section in range(hole.start[0], hole.stop[0])})
        return Loaded({SECTIONS: voxels}, voxels.nbytes, tuple(filled), sum(hole.n_voxels for hole in holes))

    def compute(self, work: Work, loaded: Loaded) -> dict[str, Voxels]:
        """`em`, and `uncertainty` where several samples are drawn: (z, y, x) uint8 of the block."""
        box, sections, counts = work.output_box, loaded.arrays[SECTIONS], RenderCounts()
        on_planes = self._on_planes(box)
        arrays = render_block(self.plan, self.model, sections, box, self.hardware, on_planes, counts)  # type: ignore[arg-type]
        loaded.notes.update(counts.as_notes(capture_state(self.model)))
        return arrays

    def write(self, work: Work, arrays: Arrays) -> Checksums:
        """Write whole shards of each array."""
        return write_shards(self.sink, self.plan.shards, work.output_box, arrays)

    def _on_planes(self, box: Box) -> Callable[[int], None]:
        n_yx = box.shape[1] * box.shape[2]
        return lambda n_planes: self.emit(PlanesDone(n_planes * n_yx))
