"""What a network learns from, by its task: gaps of a volume, or pairs of raw and clean sections.

Each is a module that answers these questions of a training run file; the loop knows neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from vemdiffuse_pipe.config import Task
from vemdiffuse_pipe.models.tasks import TASKS
from vemdiffuse_pipe.training import gap_examples, pair_examples, prepare
from vemdiffuse_pipe.training.gaps import Batches
from vemdiffuse_pipe.training.prepare import TrainingData
from vemdiffuse_pipe.training.settings import DataTable, TrainFile
from vemdiffuse_pipe.training.sizes import sizes_of
from vemdiffuse_pipe.training.slabs import TrainingVolume
from vemdiffuse_pipe.training.validation import Validation
from vemdiffuse_pipe.volume import Source


class Examples(Protocol):
    """Training examples of one sort, from a training run file and its open sources."""

    def ratios(self, table: DataTable, sources: Sequence[Source]) -> dict[int, float]:
        """Weight of each ratio that is drawn. Raises ConfigError or PlanError where the data have none."""
        ...

    def depth(self, ratio: int, reach: int) -> int:
        """Planes of a crop for gaps of up to `ratio`; `reach`: sections beyond the gap's own, each side."""
        ...

    def with_raw(self, file: TrainFile, data: TrainingData, raws: Sequence[Source | None]) -> TrainingData:
        """The data, each volume with its raw counterpart where examples have one. Raises ConfigError."""
        ...

    def batches(self, file: TrainFile, data: TrainingData) -> Batches:
        """The batches of the run, to be closed. Raises PlanError where there is no room for a crop."""
        ...

    def validation(self, file: TrainFile, data: TrainingData, device: torch.device) -> Validation:
        """Examples of what is held back, read once. Raises ConfigError where none fits."""
        ...


def examples_of(task: Task) -> Examples:
    """The examples that a task is trained on."""
    return gap_examples if TASKS[task].fills_gaps else pair_examples


def training_data(file: TrainFile, sources: Sequence[Source]) -> TrainingData:
    """What a training run file makes of its sources: no voxel is read.

    Raises ConfigError and PlanError where they do not go together. Contrasts that nobody stated are (0, 1).
    """
    examples = examples_of(file.model.task)
    ratios = examples.ratios(file.data, sources)
    regions = prepare.regions(file.source, sources)
    number = file.validation.source if file.validation else 0
    held = prepare.held_back(file.validation, regions[number])
    volumes = tuple(
        TrainingVolume(
            source,
            table.contrast or (0.0, 1.0),
            region,
            prepare.holes(table, region, held if i == number else None),
        )
        for i, (table, source, region) in enumerate(zip(file.source, sources, regions, strict=True))
    )
    sizes = sizes_of(file.model, ratios, prepare.crop_px(file.data))
    depth = examples.depth(max(ratios), sizes.reach_sections)
    cuts = prepare.cuts(file, depth, sources[0], sizes)
    data = TrainingData(volumes, held, ratios, tuple(cuts), sizes)
    for cut in data.cuts:
        prepare.slabs(file, data, cut)  # raises where a volume has no room
    return data
