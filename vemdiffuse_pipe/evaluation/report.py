"""How good a reconstructed volume is, compared with the isotropic ground truth, in one report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.evaluation.coherence import flicker, line_scores
from vemdiffuse_pipe.evaluation.correlation import HALF, shell_correlation
from vemdiffuse_pipe.evaluation.decorrelation import decorrelation_cutoff
from vemdiffuse_pipe.evaluation.fsim import fsim
from vemdiffuse_pipe.evaluation.gmsd import gmsd
from vemdiffuse_pipe.evaluation.spectrum import high_frequency_ratios
from vemdiffuse_pipe.evaluation.structure import BORDER, WIDTH, psnr, ssim_3d, ssim_of_view
from vemdiffuse_pipe.evaluation.views import Direction, View, views, window
from vemdiffuse_pipe.volume import Voxels


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured over the generated planes.

    `psnr`: dB, over all voxels, inf for equal volumes. `ssim`: 3-D window. `*_xy`, `*_xz`, `*_yz`: means
    over at most 32 evenly spaced views. `hf_*`: energy in the upper half of the spectrum along that axis
    over the truth's; below 1 texture was lost, above 1 invented. `fsc`, `fsc50`: where the Fourier shell
    correlation with the truth falls below 1/7, and below 1/2, as fractions of Nyquist (`resolution_nm` makes
    nm of them); `fsc_z`, `fsc_y`, `fsc_x`: below 1/7, among the frequencies nearest that axis. `cutoff_*`:
    decorrelation cutoff of the prediction alone, a fraction of Nyquist, to be compared with the truth's own;
    None where there is none. `flicker`: steps between generated planes over the truth's; None where no two
    are neighbours. `lines_*`: share of the fine energy along that axis, over the sections'.
    Better is up for PSNR, SSIM, FSIM and FSC, down for GMSD, and near 1 for `hf_*`, `flicker`, `lines_*`.
    """

    psnr: float
    ssim: float
    ssim_xy: float
    ssim_xz: float
    ssim_yz: float
    fsim_xy: float
    fsim_xz: float
    fsim_yz: float
    gmsd_xy: float
    gmsd_xz: float
    gmsd_yz: float
    hf_z: float
    hf_y: float
    hf_x: float
    fsc: float
    fsc50: float
    fsc_z: float
    fsc_y: float
    fsc_x: float
    cutoff_xy: float | None
    cutoff_xz: float | None
    cutoff_yz: float | None
    flicker: float | None
    lines_y: float
    lines_x: float

    def as_dict(self) -> dict[str, float | None]:
        """The fields by name, for JSON; None in place of inf, which JSON has not."""
        values = asdict(self).items()
        return {name: v if v is not None and math.isfinite(v) else None for name, v in values}


def evaluate(prediction: Voxels, truth: Voxels, *, planes: Sequence[int] | None = None) -> Report:
    """A reconstructed volume compared with ground truth, over the generated planes only.

    `prediction`, `truth`: (z, y, x) uint8 of one shape, at least 11 voxels along each axis. `planes`: the
    generated planes; None for all. In every other plane the prediction is replaced by the truth, so what
    it holds there changes nothing: no metric rewards a measured section, and a window that reaches from a
    generated plane into a measured one sees the same on both sides.

    PSNR: voxels of generated planes. SSIM: maps of whole volumes and whole views, averaged over generated
    planes and rows, 5 voxels or more inside. FSIM, GMSD: maps of views of at most 256 x 256 px, pooled over
    generated rows. HF along y and x: generated planes; along z: whole columns. FSC: see
    `shell_correlation`. Cutoffs: views as for SSIM; along xz and yz they hold measured rows, and where
    those are sharper than the planes between, the cutoff is theirs. Flicker: pairs of generated planes.
    Lines: of generated planes, relative to the truth's other planes, or to the truth where all are generated.
    Raises ConfigError for any other input.
    """
    _check_volumes(prediction, truth)
    generated = _checked_planes(planes, len(truth))
    prediction = _with_truth_elsewhere(prediction, truth, generated)
    hf_z, hf_y, hf_x = high_frequency_ratios(prediction, truth, generated)

    def mean(metric: Callable[[View], float], direction: Direction) -> float:
        return float(np.mean([metric(v) for v in views(prediction, truth, generated, direction)]))

    def cutoff(direction: Direction) -> float | None:
        return decorrelation_cutoff(v.prediction for v in views(prediction, truth, generated, direction))

    shells = shell_correlation(prediction, truth, generated)
    lines_y, lines_x = line_scores((prediction[z] for z in generated), _sections(truth, generated))
    return Report(
        psnr=psnr(prediction, truth, generated),
        ssim=ssim_3d(prediction, truth, generated),
        ssim_xy=mean(ssim_of_view, "xy"),
        ssim_xz=mean(ssim_of_view, "xz"),
        ssim_yz=mean(ssim_of_view, "yz"),
        fsim_xy=mean(_fsim_of_view, "xy"),
        fsim_xz=mean(_fsim_of_view, "xz"),
        fsim_yz=mean(_fsim_of_view, "yz"),
        gmsd_xy=mean(_gmsd_of_view, "xy"),
        gmsd_xz=mean(_gmsd_of_view, "xz"),
        gmsd_yz=mean(_gmsd_of_view, "yz"),
        hf_z=hf_z,
        hf_y=hf_y,
        hf_x=hf_x,
        fsc=shells.crossing(shells.every),
        fsc50=shells.crossing(shells.every, HALF),
        fsc_z=shells.crossing(shells.z),
        fsc_y=shells.crossing(shells.y),
        fsc_x=shells.crossing(shells.x),
        cutoff_xy=cutoff("xy"),
        cutoff_xz=cutoff("xz"),
        cutoff_yz=cutoff("yz"),
        flicker=flicker(prediction, truth, generated),
        lines_y=lines_y,
        lines_x=lines_x,
    )


def _sections(truth: Voxels, generated: Sequence[int]) -> Voxels:
    """The planes that were not generated; all where there is no such plane."""
    sections = np.delete(truth, list(generated), axis=0)
    return sections if len(sections) else truth


def _fsim_of_view(view: View) -> float:
    v = window(view)
    return fsim(v.prediction.astype(np.float32), v.truth.astype(np.float32), v.rows)


def _gmsd_of_view(view: View) -> float:
    v = window(view)
    return gmsd(v.prediction.astype(np.float32), v.truth.astype(np.float32), v.rows)


def _with_truth_elsewhere(prediction: Voxels, truth: Voxels, generated: Sequence[int]) -> Voxels:
    if len(generated) == len(truth):
        return prediction
    merged = truth.copy()
    merged[list(generated)] = prediction[list(generated)]
    return merged


def _check_volumes(prediction: Voxels, truth: Voxels) -> None:
    for name, volume in (("prediction", prediction), ("truth", truth)):
        if volume.dtype != np.uint8:
            raise ConfigError(
                f"the {name} has dtype {volume.dtype}; uint8 grey levels are needed: "
                "scale floating-point or 16-bit values to 0..255 first"
            )
    if prediction.shape != truth.shape:
        raise ConfigError(
            f"the prediction has shape {prediction.shape} and the truth {truth.shape}; "
            "they must be equal: crop both to the same box"
        )
    if truth.ndim != 3 or min(truth.shape) < WIDTH:
        raise ConfigError(
            f"found volumes of shape {truth.shape}; three axes of {WIDTH} voxels or more are needed, "
            "as wide as the window of SSIM: evaluate a larger box"
        )


def _checked_planes(planes: Sequence[int] | None, n_planes: int) -> list[int]:
    """Generated planes, ascending. Raises ConfigError unless some lie where SSIM is defined."""
    chosen = sorted(range(n_planes) if planes is None else planes)
    if len(set(chosen)) != len(chosen):
        raise ConfigError("a plane is listed twice among the generated planes; list each one once")
    if not chosen or chosen[0] < 0 or chosen[-1] >= n_planes:
        raise ConfigError(
            f"the generated planes {_span(chosen)} do not lie in a volume of {n_planes} planes; "
            f"list planes from 0 to {n_planes - 1}"
        )
    if not any(BORDER <= z < n_planes - BORDER for z in chosen):
        raise ConfigError(
            f"the generated planes {_span(chosen)} all lie within {BORDER} planes of an end of the volume, "
            "where SSIM is not defined; evaluate a deeper box"
        )
    return chosen


def _span(planes: Sequence[int]) -> str:
    return f"{planes[0]}..{planes[-1]}" if planes else "(none)"
