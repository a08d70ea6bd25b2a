"""A stored reconstruction compared with stored ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from vemdiffuse_pipe.errors import ConfigError, OutputError
from vemdiffuse_pipe.evaluation.compare import with_interpolation
from vemdiffuse_pipe.evaluation.correlation import resolution_nm
from vemdiffuse_pipe.evaluation.report import Report
from vemdiffuse_pipe.evaluation.report import evaluate as evaluate_arrays
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.plane_groups import Provenance
from vemdiffuse_pipe.storage import open_sink, open_source
from vemdiffuse_pipe.storage.grey import Window
from vemdiffuse_pipe.storage.unsized import UNSTATED_NM, open_unsized
from vemdiffuse_pipe.volume import Source, Voxels

MAX_VOXELS = 10**9  # both volumes are held in memory, and metrics work in floating point


@dataclass(frozen=True, slots=True)
class Resolution:
    """Down to which period a volume agrees with ground truth, by Fourier shell correlation (FSC)."""

    fsc_nm: float
    """Period at which the FSC falls below 1/7, in nm."""
    fsc50_nm: float
    """Period at which the FSC falls below 1/2, in nm."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A reconstruction compared with ground truth."""

    reports: dict[str, Report]
    """Metrics of 'prediction'; also of 'linear' and 'cubic', where all sections are planes of it."""
    resolutions: dict[str, Resolution]
    """Resolution of each of them; empty where the prediction states no voxel size."""
    notes: tuple[str, ...]
    """What should be known before the figures are believed, a sentence each."""


@dataclass(frozen=True, slots=True)
class _Prediction:
    source: Source
    provenance: Voxels | None  # of its planes; None where it is no output of ours
    has_all_sections: bool  # on an exact grid most sections are not planes


def evaluate(
    prediction: str,
    truth: str,
    *,
    ratio: int | None = None,
    every_plane: bool = False,
    window: Window | None = None,
) -> Evaluation:
    """The reconstruction at `prediction` compared with the ground truth at `truth`; generated planes only.

    An output of ours states which planes were generated. `ratio`: for any other volume, every ratio-th plane
    is a section. `every_plane`: no plane is a section, as in a restored volume. `window`: for volumes that
    are not uint8. The truth is cut to the prediction where it is larger. Raises ConfigError for volumes that
    do not fit each other, SourceError, DataError and TransientError.

    Example:

        >>> from vemdiffuse_pipe import evaluate
        >>> evaluation = evaluate("isotropic.zarr", "truth.tif")
        >>> sorted(evaluation.reports)
        ['cubic', 'linear', 'prediction']
    """
    opened = _opened(prediction, window)
    source = opened.source
    measured = [] if every_plane else _measured(prediction, opened, ratio)
    ours = _read(source, source.spec.shape)
    true_source = open_unsized(truth, window)
    true = _read(true_source, ours.shape)
    is_comparable = opened.has_all_sections or ratio is not None
    reports = _reports(ours, true, measured, is_comparable)
    notes = [
        *_cut(true_source, ours.shape),
        *_measured_differ(ours, true, measured),
        *([] if is_comparable or every_plane else _no_interpolation()),
    ]
    voxel_nm = float(source.spec.frame.voxel_size_nm[2])
    return Evaluation(reports, _resolutions(reports, voxel_nm), tuple(notes))


def _opened(url: str, window: Window | None) -> _Prediction:
    """The volume at `url`; of an output of ours its image `em`."""
    try:
        sink = open_sink(url)
    except OutputError:
        return _Prediction(open_unsized(url, window), None, True)
    return _Prediction(
        open_source(f"{url}/em"), sink.provenance, isinstance(sink.attributes.get("ratio"), int)
    )


def _measured(url: str, opened: _Prediction, ratio: int | None) -> list[int]:
    """The planes of a prediction that are sections."""
    if ratio is not None:
        return list(range(0, opened.source.spec.shape[0], ratio))
    if opened.provenance is None:
        raise ConfigError(
            f"{url} is not an output of vemdiffuse; say which planes are sections: --ratio R, or "
            "--every-plane for none"
        )
    planes: list[int] = np.flatnonzero(opened.provenance == Provenance.MEASURED).tolist()
    return planes


def _read(source: Source, shape: Zyx) -> Voxels:
    """The first `shape` voxels of a volume."""
    if prod(shape) > MAX_VOXELS:
        raise ConfigError(f"{source.spec.url}: {prod(shape):.3g} voxels; at most 1e9 fit an evaluation")
    if any(n < wanted for n, wanted in zip(source.spec.shape, shape, strict=True)):
        raise ConfigError(
            f"{source.spec.url} has {_by(source.spec.shape)} voxels, the prediction has {_by(shape)}; "
            "the truth must be as large, or larger"
        )
    return source.read(Box.of_shape(shape))


def _reports(ours: Voxels, true: Voxels, measured: list[int], is_comparable: bool) -> dict[str, Report]:
    """The report of the prediction, with those of interpolation where the sections are evenly spaced.

    `is_comparable`: the measured planes are all the sections.
    """
    steps = set(np.diff(measured).tolist())
    if is_comparable and len(steps) == 1 and measured[0] == 0 and measured[-1] == len(ours) - 1:
        return with_interpolation({"prediction": ours}, true, steps.pop())
    generated = sorted(set(range(len(ours))) - set(measured))
    return {"prediction": evaluate_arrays(ours, true, planes=generated)}


def _resolutions(reports: dict[str, Report], voxel_nm: float) -> dict[str, Resolution]:
    if voxel_nm == UNSTATED_NM:
        return {}
    return {
        name: Resolution(resolution_nm(report.fsc, voxel_nm), resolution_nm(report.fsc50, voxel_nm))
        for name, report in reports.items()
    }


def _cut(truth: Source, shape: Zyx) -> list[str]:
    if truth.spec.shape == shape:
        return []
    return [f"the truth, {_by(truth.spec.shape)} voxels, is cut to the prediction"]


def _measured_differ(ours: Voxels, true: Voxels, measured: list[int]) -> list[str]:
    if np.array_equal(ours[measured], true[measured]):
        return []
    return ["the measured planes differ from those of the truth: is it the same volume?"]


def _no_interpolation() -> list[str]:
    return ["on an exact grid sections lie between planes: interpolation is not shown beside"]


def _by(shape: Zyx) -> str:
    return " x ".join(map(str, shape))
