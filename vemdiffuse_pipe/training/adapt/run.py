"""The default model adapted to a volume: `adapt`.

OUTPUT                       the checkpoint: the best so far, for `--model`
OUTPUT.training/             state.safetensors, from which the same command goes on; log.jsonl, loss.png
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from queue import SimpleQueue
from typing import cast

from torch import nn

from vemdiffuse_pipe.cluster import signals
from vemdiffuse_pipe.cluster.hosts import device_name
from vemdiffuse_pipe.cluster.memory import share_arenas
from vemdiffuse_pipe.config import Json
from vemdiffuse_pipe.errors import ConfigError, PlanError
from vemdiffuse_pipe.evaluation.agreement import Agreement, agreement
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.holdout.answers import Answer, answer, candidate_of, doubled_ratio
from vemdiffuse_pipe.holdout.places import draw_places
from vemdiffuse_pipe.models.card import ModelCard, find_card, find_checkpoint
from vemdiffuse_pipe.models.checkpoint import Network, load_network
from vemdiffuse_pipe.models.gap_models import BothNetworks
from vemdiffuse_pipe.output.identity import check_identity
from vemdiffuse_pipe.phantom import phantom
from vemdiffuse_pipe.plan.planes import choose_ratio, exact_ratio
from vemdiffuse_pipe.storage import parse_address
from vemdiffuse_pipe.storage.retry import RetryPolicy, with_retries
from vemdiffuse_pipe.survey.contrast import measure_contrast
from vemdiffuse_pipe.training.adapt.gaps import (
    LATERAL,
    PATTERN,
    REPLAY,
    SECTIONS,
    BothObjectives,
    Cutting,
    Mixed,
    OwnGaps,
    Replayed,
)
from vemdiffuse_pipe.training.degraded import DegradedBatches
from vemdiffuse_pipe.training.export import write_checkpoint
from vemdiffuse_pipe.training.gaps import Batches, GapBatches, Variation
from vemdiffuse_pipe.training.journal import Journal
from vemdiffuse_pipe.training.loop import Record, TrainingJob, TrainingOutcome, train
from vemdiffuse_pipe.training.objectives.gaps import Estimation, PlaneDiffusion
from vemdiffuse_pipe.training.pool import SlabPool
from vemdiffuse_pipe.training.processes import ProcessGroup, joined
from vemdiffuse_pipe.training.settings import TrainTable
from vemdiffuse_pipe.training.slabs import CropSpec, SlabSchedule, TrainingVolume
from vemdiffuse_pipe.training.state import stored_identity
from vemdiffuse_pipe.volume import Source, Voxels

KIND = "estimator-sampler"
CROP_PX = 64
BATCH_SIZE = 8
LR = 3e-4
MAX_STEPS = 1_000_000  # time ends it
VALIDATE_EVERY = 100
SAVE_EVERY = 50
PATIENCE = 8  # validations in a row without anything better
HELD_BACK = 0.25  # of the columns, at their end
N_PLACES = 4
MULTIPLE_PX = 8
MIN_SECTIONS = 8  # two gaps on either side of a section that is left out, and crops of 8 rows along z
PHANTOM_SHAPE = (72, 152, 152)  # what the widest gap of the recipe, of the largest pixels, needs
TEXTURE_WEIGHT = 0.5  # dB of the score for each dB of texture too much or too little
MAX_TEXTURE_DB = 6.0


@dataclass(frozen=True, slots=True)
class Adapted:
    """What `adapt` made. `before`, `after`: scores of the held-back part, by the first and the best weights.

    `checkpoint`: None where no weights were better than the first.
    """

    outcome: TrainingOutcome
    checkpoint: Path | None
    before: float
    after: float


def adapt(
    source: Source,
    output: Path,
    *,
    minutes: float = 20.0,
    model: str = "default",
    device: str = "cpu",
    seed: int = 0,
    pattern: Sequence[str] = PATTERN,
    max_steps: int = MAX_STEPS,
    lr: float = LR,
    listener: Callable[[Record], None] = lambda record: None,
) -> Adapted:
    """Train the weights of `model` on the sections of `source` for so many minutes; rerun to resume.

    A quarter of the columns is held back: what is learnt is judged there, by sections that are left out, and
    the best weights are kept. `max_steps`: end earlier. Raises ConfigError, ModelError and PlanError where
    nothing can be learnt: another kind of model, too few sections, a volume that is isotropic already;
    TrainingError, StorageFullError, AccessError or TransientError.

    Example:

        >>> from pathlib import Path
        >>> from vemdiffuse_pipe import adapt, open_source
        >>> source = open_source("sections.tif", voxel_size_nm=(50, 4.6, 4.6))
        >>> adapted = adapt(source, Path("mine.safetensors"), minutes=0.01)
        >>> adapted.after >= adapted.before
        True
    """
    share_arenas()
    card = find_card(model)
    _check(source, card)
    contrast = with_retries(lambda: measure_contrast(source), RetryPolicy(), lambda reason: None)
    held, folder = held_back(source), output.with_suffix(".training")
    identity = _identity(source, card, seed, pattern, lr)
    state_file = folder / "state.safetensors"
    _check_is_ours(state_file, identity)
    network = cast(BothNetworks, load_network(find_checkpoint(model), card))
    objective = BothObjectives(Estimation(card.residual_scale), PlaneDiffusion(card.residual_scale))
    table = _table(minutes, max_steps, device, seed)
    with joined(device, BATCH_SIZE) as processes:
        batches = own_batches(source, card, contrast, held, seed, pattern)
        try:
            watcher = _Watcher(source, card, contrast, held, output, folder, processes, listener)
            watcher.before = watcher.score_of(copy.deepcopy(network))
            job = TrainingJob(network, objective, batches, table, state_file, identity, lr)
            with signals.received(watcher.interrupt):
                outcome = train(job, processes, watcher)
        finally:
            batches.close()
    watcher.journal.draw()
    best = max(watcher.before, -math.inf if outcome.best is None else outcome.best)
    return Adapted(outcome, output if output.exists() else None, watcher.before, best)


def _identity(
    source: Source, card: ModelCard, seed: int, pattern: Sequence[str], lr: float
) -> dict[str, Json]:
    """What the weights are a function of, by name."""
    return {
        "source": source.spec.url,
        "model": card.sha256,
        "seed": seed,
        "pattern": ",".join(pattern),
        "lr": lr,
    }


def _check_is_ours(state_file: Path, identity: Mapping[str, Json]) -> None:
    """Raises OutputError where the state is that of another training."""
    stored = stored_identity(state_file)
    if stored is not None:
        check_identity(str(state_file.parent), stored, identity)


def _table(minutes: float, max_steps: int, device: str, seed: int) -> TrainTable:
    return TrainTable(
        steps=max_steps,
        batch_size=BATCH_SIZE,
        lr_decay="none",
        warmup=50,
        device=device,
        seed=seed,
        hours=minutes / 60,
        patience=PATIENCE,
        validate_every=min(VALIDATE_EVERY, max_steps),
        save_every=SAVE_EVERY,
    )


def model_beside(output: str) -> Path:
    """Where the model that is adapted for an output goes: beside it, here for an output elsewhere."""
    address = parse_address(output)
    place = address.path if address.is_local else Path.cwd() / str(address).rstrip("/").rsplit("/", 1)[-1]
    return place.with_name(f"{place.name}.model.safetensors")


def _check(source: Source, card: ModelCard) -> None:
    """Raises ConfigError or PlanError where the model cannot be adapted to the volume."""
    if card.kind != KIND:
        raise ConfigError(
            f"model {card.name} is of kind {card.kind}; adapt is for models of kind {KIND}, such as default: "
            "`vemdiffuse train` with `from` in [train] fine-tunes others"
        )
    choose_ratio(source.spec.frame, None)  # raises PlanError where the volume is isotropic
    n_sections, y, x = source.spec.shape
    if n_sections < MIN_SECTIONS or y < CROP_PX or (1 - HELD_BACK) * x < CROP_PX + MULTIPLE_PX:
        side = ceil((CROP_PX + MULTIPLE_PX) / (1 - HELD_BACK))
        raise PlanError(
            f"{source.spec.url} has {n_sections} sections of {y} x {x} px; at least {MIN_SECTIONS} of "
            f"{CROP_PX} x {side} px are needed to adapt a model to them: take a larger part, or the model as "
            "it is"
        )


def held_back(source: Source) -> Box:
    """What nothing is learnt from: the last columns of every section."""
    nz, ny, nx = source.spec.shape
    return Box((0, 0, nx - ceil(HELD_BACK * nx)), (nz, ny, nx))


def own_batches(
    source: Source,
    card: ModelCard,
    contrast: tuple[float, float],
    held: Box,
    seed: int,
    pattern: Sequence[str] = PATTERN,
) -> Mixed:
    """All that is learnt from, to be closed. Nothing is read yet."""
    volume = TrainingVolume(source, contrast, source.spec.frame.box, (held,))
    z, y, x = map(float, source.spec.frame.voxel_size_nm)
    pixel_nm, r = (y + x) / 2, min(round(exact_ratio(source.spec.frame.voxel_size_nm)), card.max_ratio)

    def gaps(cut: CropSpec, ratio: int, cutting: Cutting) -> Batches:
        pool = SlabPool(SlabSchedule([volume], cut, seed))
        return OwnGaps(GapBatches(pool, {ratio: 1.0}, BATCH_SIZE, Variation(), reach=1), cutting)

    dz = z / pixel_nm
    doubled = Cutting(2 * dz, dz, dz, doubled_ratio(card, round(dz)), pixel_nm)
    thin = Cutting(r, 1.0, 1.0, r, pixel_nm)
    kinds: dict[str, list[Batches]] = {
        SECTIONS: [gaps(CropSpec(0, 7, CROP_PX, CROP_PX), 2, doubled)],
        LATERAL: [gaps(cut, r, thin) for cut in lateral_cuts(source, held, r)],
        REPLAY: [],
    }
    if REPLAY in pattern:
        volumes = [phantom(PHANTOM_SHAPE, seed + 1)]
        kinds[REPLAY] = [Replayed(DegradedBatches(volumes, batch_size=BATCH_SIZE, seed=seed))]
    return Mixed({kind: kinds[kind] for kind in dict.fromkeys(pattern)}, pattern)


def lateral_cuts(source: Source, held: Box, r: int) -> list[CropSpec]:
    """How gaps of r pixels along y and x lie in the volume, z as it is and resampled to square pixels.

    Three gaps, the middle one to learn, must fit into what is not held back.
    """
    nz, ny, _ = source.spec.shape
    depth = 3 * r + 1
    rows = {1: min(CROP_PX, nz // MULTIPLE_PX * MULTIPLE_PX)}
    rows[r] = min(CROP_PX, (r * (nz - 2) + 1) // MULTIPLE_PX * MULTIPLE_PX)
    room = {1: ny, 2: held.start[2]}
    other = {1: held.start[2], 2: ny}
    return [
        CropSpec(axis, depth, n, CROP_PX, upsampling)
        for axis in (1, 2)
        if depth <= room[axis] and other[axis] >= CROP_PX
        for upsampling, n in rows.items()
        if n >= MULTIPLE_PX
    ]


class _Watcher:
    """Judges by sections left out of the held-back part, keeps the best: `training.loop.Watcher`."""

    def __init__(
        self,
        source: Source,
        card: ModelCard,
        contrast: tuple[float, float],
        held: Box,
        output: Path,
        folder: Path,
        processes: ProcessGroup,
        listener: Callable[[Record], None],
    ) -> None:
        self.source, self.card, self.contrast, self.held = source, card, contrast, held
        self.output, self.folder, self.processes, self.listener = output, folder, processes, listener
        self.before = self._last = -math.inf
        self._places = draw_places(source, N_PLACES, card.reach_sections, held)
        self._asked: SimpleQueue[object] = SimpleQueue()

    def start(self, step: int) -> None:
        """Open the journal from `step` on."""
        self.journal = Journal(self.folder, step)

    def interrupt(self, number: object) -> None:
        """Have training end: a signal came."""
        self._asked.put(number)

    def is_interrupted(self) -> bool:
        """True from the first signal on."""
        return not self._asked.empty()

    def on_record(self, record: Record) -> None:
        """Write a record down, and tell the listener."""
        self.journal.add(record)
        self.listener(record)

    def validate(self, average: nn.Module, step: int) -> float | None:
        """How well the averaged weights make sections of the held-back part."""
        estimate, sample = self._scores(average)
        self._last = total = score(estimate, sample)
        self.on_record(
            {
                "step": step,
                "score": round(total, 3),
                "psnr": round(estimate.psnr, 3),
                "psnr_low": round(estimate.psnr_low, 3),
                "sample_fsim": round(sample.fsim, 4),
                "sample_hf_y": round(sample.hf_y, 3),
                "sample_hf_x": round(sample.hf_x, 3),
            }
        )
        return total

    def keep(self, average: nn.Module, step: int) -> None:
        """Write the checkpoint, where it is better than the shipped weights."""
        if self._last <= self.before:
            return
        where = device_name(str(self.processes.device))
        card = adapted_card(self.card, self.output.stem, self.held, step, where)
        write_checkpoint(self.output, cast(Network, average), card)

    def score_of(self, network: nn.Module) -> float:
        """The score of a network, which is not to be trained afterwards."""
        return score(*self._scores(network))

    def _scores(self, average: nn.Module) -> tuple[Agreement, Agreement]:
        candidate = candidate_of(
            self.card, average, self.source.spec, self.contrast, str(self.processes.device)
        )
        answers = [
            answer(candidate, place, self.source.spec, self.contrast, seed)
            for seed, place in enumerate(self._places)
        ]
        truths = [place.truth for place in self._places]
        return agreement([a.estimate for a in answers], truths), agreement(_samples(answers), truths)


def _samples(answers: Sequence[Answer]) -> list[Voxels]:
    return [a.sample for a in answers if a.sample is not None]


def score(estimate: Agreement, sample: Agreement) -> float:
    """What the best is chosen by, dB: structure of the estimate, less what a sample's texture is off by."""
    off = [min(MAX_TEXTURE_DB, abs(10 * math.log10(max(hf, 1e-3)))) for hf in (sample.hf_y, sample.hf_x)]
    return (estimate.psnr + estimate.psnr_low) / 2 - TEXTURE_WEIGHT * sum(off) / 2


def adapted_card(card: ModelCard, name: str, held: Box, step: int, where: str) -> ModelCard:
    """The card of an adapted model: what it was, and what it has learnt since."""
    return replace(
        card,
        name=name,
        training=f"{card.training}; then adapted to a volume of its user: {step} steps, {where}",
        trained_on=f"{card.trained_on}; then a volume of its user",
        licence=f"that of the volume it was adapted to, and: {card.licence}",
        figures="",
        held_back=(*held.start, *held.stop),
    )
