"""The full pipeline on a synthetic volume: a phantom loses four planes of five, and gets them back.

    DIR/  truth.zarr        the phantom, isotropic
          sections.zarr     every fifth plane of it: what a microscope would give
          isotropic.zarr    made from the sections by the model: best estimate, uncertainty, one sample
          one_sample.zarr   of a model without an estimate: one sample, not an average
          views.png         xy and xz views: input, cubic, ours, truth, uncertainty

All but the picture are output groups with the image `em`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from vemdiffuse_pipe.errors import DataError, OutputError
from vemdiffuse_pipe.evaluation import Report, Scales, figure, interpolate
from vemdiffuse_pipe.evaluation.compare import with_interpolation
from vemdiffuse_pipe.evaluation.picture import UNCERTAINTY
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.geometry.grey import UNCERTAINTY_STEP, to_grey
from vemdiffuse_pipe.geometry.plane_groups import Provenance
from vemdiffuse_pipe.models.card import find_card
from vemdiffuse_pipe.phantom import phantom
from vemdiffuse_pipe.records.events import Listener, silent
from vemdiffuse_pipe.running.reconstruct import reconstruct
from vemdiffuse_pipe.storage import create_sink, open_sink
from vemdiffuse_pipe.volume import Voxels

RATIO = 5
SHAPE = (61, 160, 160)
SEED = 20
VOXEL_NM = Fraction(10)


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demonstration made; `reports`: figures by row of the table, generated planes only."""

    picture: Path
    reports: dict[str, Report]


def demo(folder: Path, *, model: str = "default", shape: Zyx = SHAPE, listener: Listener = silent) -> Demo:
    """Make the phantom in `folder`, reconstruct it from every fifth plane, and compare that with the truth.

    `shape`: of the truth, zyx, a whole number of gaps. Rerun in the same folder to resume. Raises
    OutputError where `folder` holds something else, DataError where a block could not be rendered.
    """
    truth, sections = _phantom(folder, shape)
    card, output = find_card(model), folder / "isotropic.zarr"
    _reconstruct(folder, output, model, 1 if card.has_estimate and card.is_stochastic else None, listener)
    if card.has_estimate:
        images = {"estimate": _read(output, "em")}
        if card.is_stochastic:
            images["one sample"] = _read(output, "sample")
    else:
        images = {f"mean of {card.samples}" if card.is_stochastic else "model": _read(output, "em")}
        if card.is_stochastic:
            _reconstruct(folder, folder / "one_sample.zarr", model, 1, listener)
            images["one sample"] = _read(folder / "one_sample.zarr", "em")
    views = folder / "views.png"
    _draw(views, _volumes(sections, truth, output))
    return Demo(views, with_interpolation(images, truth, RATIO))


def _phantom(folder: Path, shape: Zyx) -> tuple[Voxels, Voxels]:
    """The truth and its sections, stored; the centre of section 0 is that of plane 0."""
    truth = phantom(shape, SEED, voxel_size_nm=float(VOXEL_NM))
    sections = truth[::RATIO]
    frame = Frame(shape, (VOXEL_NM, VOXEL_NM, VOXEL_NM))
    thick = (VOXEL_NM * RATIO, VOXEL_NM, VOXEL_NM)
    _store(folder / "truth.zarr", frame, truth)
    _store(
        folder / "sections.zarr",
        Frame.from_centre((len(sections), *shape[1:]), thick, frame.centre_nm),
        sections,
    )
    return truth, sections


def _store(path: Path, frame: Frame, voxels: Voxels) -> None:
    """Write a volume, unless it is there. Raises OutputError where something else is."""
    with suppress(OutputError):  # it is there, or opening it says what is
        create_sink(
            path,
            frame,
            arrays=("em",),
            chunk_shape=frame.shape,
            shard_shape=frame.shape,
            attributes={"description": "phantom"},
            provenance=np.full(frame.shape[0], Provenance.MEASURED, np.uint8),
        )
    sink = open_sink(path)
    if sink.spec.frame != frame:
        raise OutputError(f"{path} holds another volume; choose another folder for the demonstration")
    sink.write("em", frame.box, np.ascontiguousarray(voxels))


def _reconstruct(folder: Path, output: Path, model: str, samples: int | None, listener: Listener) -> None:
    source = str(folder / "sections.zarr" / "em")
    outcome = reconstruct(source, str(output), model=model, samples=samples, listener=listener)
    if outcome.stopped:
        raise KeyboardInterrupt(outcome.stopped)
    if outcome.exit_code:
        raise DataError(f"{output} is not complete: {'; '.join(b.reason for b in outcome.failed_blocks)}")


def _read(path: Path, array: str) -> Voxels:
    sink = open_sink(path)
    return sink.read(array, Box.of_shape(sink.spec.shape))


def _volumes(sections: Voxels, truth: Voxels, output: Path) -> dict[str, Voxels]:
    """The volumes of the picture, by title: all of the shape of the truth, zyx, uint8."""
    nearest = (np.arange(len(truth)) + RATIO // 2) // RATIO
    volumes = {
        f"input: every {RATIO}th plane": sections[nearest],
        "cubic interpolation": to_grey(interpolate(sections, RATIO, 3)),
        "vemdiffuse": _read(output, "em"),
        "truth": truth,
    }
    volumes = {title: _brightened(volume, truth) for title, volume in volumes.items()}
    if UNCERTAINTY in open_sink(output).arrays:
        volumes[UNCERTAINTY] = _read(output, UNCERTAINTY)
    return volumes


def _brightened(volume: Voxels, truth: Voxels) -> Voxels:
    """The volume with the grey levels of the truth spread over 0 to 255, but for one voxel in 500."""
    low, high = np.percentile(truth, (0.1, 99.9))
    spread: Voxels = np.interp(volume, (low, high), (0, 255)).round().astype(np.uint8)
    return spread


def _draw(path: Path, volumes: dict[str, Voxels]) -> None:
    """Write the picture of the volumes: a plane halfway between two sections, and a cut along z."""
    n_planes, n_rows, _ = next(iter(volumes.values())).shape
    plane, row = n_planes // 2 // RATIO * RATIO + RATIO // 2, n_rows // 2
    rows = {
        f"xy: plane {plane}, halfway between two sections": {t: v[plane] for t, v in volumes.items()},
        f"xz: row {row}, z downwards": {title: v[:, row] for title, v in volumes.items()},
    }
    page = figure(rows, scale=2, scales=Scales(float(VOXEL_NM), UNCERTAINTY_STEP))
    page.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)
