"""A training run file done: volumes opened, the loop run, and its folder kept.

FOLDER/  state.safetensors    everything needed to resume, and the identity of the training
         NAME.safetensors     the checkpoint: the best so far, for `--model`
         log.jsonl loss.png   what happened, a line a record; the curve
         step_N.png           one gap that was held back, as drawn after N steps
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from torch import nn

from vemdiffuse_pipe.cluster import signals
from vemdiffuse_pipe.cluster.hosts import device_name
from vemdiffuse_pipe.cluster.memory import share_arenas
from vemdiffuse_pipe.config import Json, Table
from vemdiffuse_pipe.evaluation.picture import picture
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.output.identity import check_identity
from vemdiffuse_pipe.storage import open_source
from vemdiffuse_pipe.storage.faults import writing
from vemdiffuse_pipe.storage.retry import RetryPolicy, with_retries
from vemdiffuse_pipe.survey.bad_sections import sections_to_reject
from vemdiffuse_pipe.survey.contrast import measure_contrast
from vemdiffuse_pipe.training import kinds
from vemdiffuse_pipe.training.examples import examples_of, training_data
from vemdiffuse_pipe.training.export import card_of, write_checkpoint
from vemdiffuse_pipe.training.gap_examples import measured_residual_scale
from vemdiffuse_pipe.training.gaps import Batches
from vemdiffuse_pipe.training.journal import Journal
from vemdiffuse_pipe.training.loop import Record, TrainingJob, TrainingOutcome
from vemdiffuse_pipe.training.loop import train as run_loop
from vemdiffuse_pipe.training.prepare import TrainingData, section_box
from vemdiffuse_pipe.training.processes import ProcessGroup, joined
from vemdiffuse_pipe.training.settings import TrainFile, TrainingSource
from vemdiffuse_pipe.training.sizes import RESIDUAL
from vemdiffuse_pipe.training.slabs import TrainingVolume
from vemdiffuse_pipe.training.state import stored_identity
from vemdiffuse_pipe.training.validation import Validation
from vemdiffuse_pipe.volume import OnHole, Source, VolumeSpec, Voxels, ignore_hole

FINE_TUNING_LR, LR = 1e-5, 1e-3
# Keys that change no weight: how long, where, how often the state is saved and logged.
FREE = {"hours", "patience", "save_every", "log_every", "device", "compile"}
PICTURE_SCALE = 2


@dataclass(frozen=True, slots=True)
class Trained:
    """What `train` made."""

    outcome: TrainingOutcome
    folder: Path
    """The folder of the run."""
    checkpoint: Path | None
    """None where none was written yet."""


class PersistentSource:
    """A source whose reads are tried again while they fail in passing."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def spec(self) -> VolumeSpec:
        """That of the source."""
        return self._source.spec

    def read(self, box: Box, on_hole: OnHole = ignore_hole) -> Voxels:
        """The voxels of `box`. Raises what the source raises, RetriesExhaustedError after the last try."""
        return with_retries(lambda: self._source.read(box, on_hole), RetryPolicy(), lambda reason: None)


def train(file: TrainFile, *, listener: Callable[[Record], None] = lambda record: None) -> Trained:
    """Do what a training run file says; rerun to resume. `listener` is given each record of the journal.

    Raises InputError where training cannot start, also for a folder of another training; TrainingError where
    the loss is no number; StorageFullError. The state that was saved last stays.

    Example:

        >>> from pathlib import Path
        >>> from vemdiffuse_pipe import load_train_file, train
        >>> train(load_train_file(Path("train.toml"))).outcome.step
        1
    """
    share_arenas()
    folder = Path(file.output.folder).expanduser().absolute()
    stored = stored_identity(folder / "state.safetensors")
    with joined(file.train.device, file.train.batch_size) as processes:
        examples, scale = examples_of(file.model.task), file.model.task_facts.scale
        data = training_data(file, [_opened(table, table.url) for table in file.source])
        raws = [_opened(table, table.raw, scale) if table.raw else None for table in file.source]
        data = examples.with_raw(file, data, raws)
        data = data.with_volumes(lambda i, volume: _surveyed(file.source[i], volume))
        batches = examples.batches(file, data)
        try:
            return _trained(file, data, batches, processes, folder, stored, listener)
        finally:
            batches.close()


def _trained(
    file: TrainFile,
    data: TrainingData,
    batches: Batches,
    processes: ProcessGroup,
    folder: Path,
    stored: dict[str, Any] | None,
    listener: Callable[[Record], None],
) -> Trained:
    scale = _residual_scale(file, stored, batches)
    trainable = kinds.build(file.model, file.train, data.sizes, data.ratios, scale)
    identity = identity_of(file, data, scale)
    if stored is not None:
        check_identity(str(folder), stored, identity)
    validation = None
    if file.validation is not None and processes.is_first:
        validation = examples_of(file.model.task).validation(file, data, processes.device)
    lr = file.train.lr or (FINE_TUNING_LR if file.train.checkpoint else LR)
    state_file = folder / "state.safetensors"
    job = TrainingJob(trainable.network, trainable.objective, batches, file.train, state_file, identity, lr)
    watcher = _Watcher(file, data, trainable, validation, processes, folder, listener)
    with signals.received(watcher.interrupt):
        outcome = run_loop(job, processes, watcher)
    if processes.is_first:
        watcher.journal.draw()
    return Trained(outcome, folder, watcher.checkpoint if watcher.checkpoint.exists() else None)


class _Watcher:
    """Writes down what happens, validates, and keeps the best: `training.loop.Watcher`."""

    def __init__(
        self,
        file: TrainFile,
        data: TrainingData,
        trainable: kinds.TrainableModel,
        validation: Validation | None,
        processes: ProcessGroup,
        folder: Path,
        listener: Callable[[Record], None],
    ) -> None:
        self.file, self.data, self.trainable, self.validation = file, data, trainable, validation
        self.processes, self.folder, self.listener = processes, folder, listener
        self.checkpoint = folder / f"{file.output.name}.safetensors"
        self._asked: SimpleQueue[object] = SimpleQueue()
        self._seconds = 0.0

    def start(self, step: int) -> None:
        """Open the journal from `step` on; here the folder is made."""
        self.journal = Journal(self.folder, step)

    def interrupt(self, number: object) -> None:
        """Have training end: a signal came."""
        self._asked.put(number)

    def is_interrupted(self) -> bool:
        """True from the first signal on."""
        return not self._asked.empty()

    def on_record(self, record: Record) -> None:
        """Write a record to the journal, and hand it to the listener."""
        seconds = record.get("seconds")
        self._seconds = seconds if isinstance(seconds, float) else self._seconds
        self.journal.add(record)
        self.listener(record)

    def validate(self, average: nn.Module, step: int) -> float | None:
        """The score of the average, by the real sampler; a record of it, and a picture."""
        if self.validation is None or self.file.validation is None:
            return None
        contrast = self.data.volumes[self.file.validation.source].contrast
        scores, panels = self.validation.scores(self.trainable.as_model(average, contrast))
        total = scores.total(self.file.validation.line_weight)
        self.on_record(
            {"step": step, "score": round(total, 4), **{k: round(v, 4) for k, v in scores.as_dict().items()}}
        )
        path = self.folder / f"step_{step}.png"
        with writing(str(path)):
            picture(panels, scale=PICTURE_SCALE).save(path)
        self.journal.draw()
        return total

    def keep(self, average: nn.Module, step: int) -> None:
        """Write the checkpoint."""
        where = device_name(str(self.processes.device)) + (
            f" x {self.processes.size}" if self.processes.size > 1 else ""
        )
        card = card_of(self.trainable.card, self.file, self.data, step, self._seconds, where)
        write_checkpoint(self.checkpoint, self.trainable.exported(average), card)


def identity_of(file: TrainFile, data: TrainingData, scale: float) -> dict[str, Json]:
    """What the weights are a function of, by name: another training differs in one of these."""
    free = FREE | ({"steps"} if file.train.lr_decay == "none" else set())
    identity: dict[str, Json] = {"residual_scale": scale}
    for i, (table, volume) in enumerate(zip(file.source, data.volumes, strict=True)):
        named = _named(f"source.{i}", table, {"url", "contrast"})
        contrast: Json = [*volume.contrast]
        identity |= {**named, f"source.{i}.url": volume.source.spec.url, f"source.{i}.contrast": contrast}
    usual = {"grid"} if file.data.grid == "whole" else set()  # older trainings, without the key, go on
    identity |= _named("data", file.data, usual) | _network(file, data)
    if not file.model.task_facts.fills_gaps:
        identity["data.pairs"] = "slabs"  # once they were held in memory, and other crops were drawn
    identity |= _named("train", file.train, free)
    return identity | (_named("validation", file.validation, set()) if file.validation else {})


def _network(file: TrainFile, data: TrainingData) -> dict[str, Json]:
    table = file.model.model_dump(include={"kind", "difficulty", "features", "samples", "steps"})
    table |= {"task": file.model.task} if not file.model.task_facts.fills_gaps else {}
    sizes = kinds.sizes_by_name(data.sizes)
    return {f"model.{k}": [*v] if isinstance(v, tuple) else v for k, v in {**table, **sizes}.items()}


def _named(name: str, table: Table, left_out: set[str]) -> dict[str, Json]:
    return {f"{name}.{key}": value for key, value in table.model_dump(mode="json", exclude=left_out).items()}


def _opened(table: TrainingSource, url: str, scale: int = 1) -> Source:
    """The volume at `url`, of pixels `scale` times as large as those that are stated, if any are."""
    size = table.voxel_size_nm
    return PersistentSource(
        open_source(
            url,
            voxel_size_nm=size and (size[0], size[1] * scale, size[2] * scale),
            level=table.level,
            channel=table.channel,
            series=table.series,
            pattern=table.pattern,
            window=table.window,
            missing=table.missing,
            corrupt=table.corrupt,
            nan=table.nan,
        )
    )


def _surveyed(table: TrainingSource, volume: TrainingVolume) -> TrainingVolume:
    """The volume without sections that are no data, its contrast measured where nobody stated it."""
    rejected = (*table.rejected_sections, *sections_to_reject(table, volume.source, table.rejected_sections))
    holes = tuple(section_box(volume.region, u) for u in rejected)
    contrast = table.contrast or measure_contrast(volume.given, rejected)
    return replace(volume, contrast=contrast, holes=(*volume.holes, *holes))


def _residual_scale(file: TrainFile, stored: dict[str, Any] | None, batches: Batches) -> float:
    """As given; as the checkpoint was trained, or as this training was started; else measured.

    1 where the network does not answer with residuals.
    """
    if file.model.kind not in RESIDUAL:
        return 1.0
    if file.model.residual_scale is not None:
        return file.model.residual_scale
    if file.train.checkpoint is not None:
        return kinds.residual_scale_of(file.train.checkpoint, file.model.task)
    scale = (stored or {}).get("residual_scale")
    return scale if isinstance(scale, float) else measured_residual_scale(batches)
