"""The checkpoint of a training: half-precision weights, with a card that says how they came about."""

from __future__ import annotations

import errno
import re
from dataclasses import replace
from pathlib import Path

import safetensors

from vemdiffuse_pipe.geometry.frame import show_nm
from vemdiffuse_pipe.models.card import ModelCard
from vemdiffuse_pipe.models.checkpoint import Network, save_checkpoint
from vemdiffuse_pipe.storage import objects, parse_address
from vemdiffuse_pipe.storage.faults import writing
from vemdiffuse_pipe.training.prepare import TrainingData
from vemdiffuse_pipe.training.settings import TrainFile


def write_checkpoint(path: Path, network: Network, card: ModelCard) -> None:
    """Put the checkpoint at `path`, durably: after a crash there is the one before or this one.

    Raises OutputError or StorageFullError.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        with writing(str(path)):
            _save(draft, network, card)
            data = draft.read_bytes()
    finally:
        draft.unlink(missing_ok=True)
    objects.write_bytes_atomically(parse_address(path), data)


def _save(path: Path, network: Network, card: ModelCard) -> None:
    """Raises OSError."""
    try:
        save_checkpoint(path, network, card)
    except safetensors.SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        raise OSError(int(code[1]) if code else errno.EIO, str(error)) from None


def card_of(
    card: ModelCard, file: TrainFile, data: TrainingData, step: int, seconds: float, where: str
) -> ModelCard:
    """The card with what is known now: data, steps, device, time, licence."""
    px = data.cuts[0]
    axis = {"z": "z", "y": "y, z in its place", "x": "x, z in its place", "yx": "y and x, z in their place"}
    origin = f", started from {Path(file.train.checkpoint).name}" if file.train.checkpoint else ""
    sizes = sorted({show_nm(v.source.spec.frame.voxel_size_nm) for v in data.volumes})
    ratios = ", ".join(map(str, sorted(data.ratios)))
    what = f"gaps along {axis[file.data.axis]}, at ratios {ratios}"
    if not file.model.task_facts.fills_gaps:
        what = "sections one by one"
    features = Path(file.model.features).name if file.model.features else "fixed random filters"
    compared = f", textures compared by {features}" if file.model.kind == "a2i3dem" else ""
    return replace(
        card,
        name=file.output.name,
        trained_on=file.output.trained_on or f"{len(data.volumes)} volumes of formats and places not stated",
        training=(
            f"{step} steps of {file.train.batch_size} crops of {px.rows} x {px.columns} px, {where}, "
            f"{seconds / 3600:.2f} hours, {file.train.precision}, seed {file.train.seed}{compared}{origin}"
        ),
        voxel_size_nm=f"{'; '.join(sizes)}; {what}",
        licence=file.output.licence or "not stated",
    )
