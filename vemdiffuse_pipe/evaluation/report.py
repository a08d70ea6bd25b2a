"""How good a reconstructed volume is, compared with the isotropic ground truth, in one report."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
from vemdiffuse_pipe.evaluation.views import AXES, Direction, View, views, window
from vemdiffuse_pipe.volume import Voxels


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured over the generated planes; `*_xy`, `*_xz`, `*_yz` are of views in those planes.

    Views: at most 32, evenly spaced. Better is up for PSNR, SSIM, FSIM and FSC, down for GMSD, and near 1 for
    `hf_*`, `flicker` and `lines_*`.
    """

    psnr: float
    """dB, over all voxels of generated planes; inf for equal volumes."""
    ssim: float
    """3-D window; the map of the whole volume, averaged over generated planes, 5 voxels or more inside."""
    ssim_xy: float
    """Maps of whole views, averaged over generated rows, 5 pixels or more inside."""
    ssim_xz: float
    ssim_yz: float
    fsim_xy: float
    """Maps of views of at most 256 x 256 px, pooled over generated rows."""
    fsim_xz: float
    fsim_yz: float
    gmsd_xy: float
    """As for FSIM."""
    gmsd_xz: float
    gmsd_yz: float
    hf_z: float
    """Energy in the upper half of the spectrum along z, of whole columns, over the truth's; below 1 texture
    was lost, above 1 invented."""
    hf_y: float
    """The same along y, of generated planes."""
    hf_x: float
    fsc: float
    """Where the Fourier shell correlation with the truth falls below 1/7, as a fraction of Nyquist
    (`resolution_nm` makes nm of it)."""
    fsc50: float
    """Where it falls below 1/2."""
    fsc_z: float
    """Where it falls below 1/7 among the frequencies nearest z."""
    fsc_y: float
    fsc_x: float
    cutoff_xy: float | None
    """Decorrelation cutoff of the prediction alone, a fraction of Nyquist, to be compared with the truth's;
    None where there is none."""
    cutoff_xz: float | None
    """Views hold measured rows as well: where those are sharper than the planes between, it is theirs."""
    cutoff_yz: float | None
    flicker: float | None
    """Steps between neighbouring generated planes over the truth's; None where no two are neighbours."""
    lines_y: float
    """Share of fine energy along y of generated planes, over that of the truth's other planes, or over the
    truth's where all are generated."""
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
    generated plane into a measured one sees the same on both sides. Raises ConfigError for any other input.
    """
    _check_volumes(prediction, truth)
    generated = _checked_planes(planes, len(truth))
    prediction = _with_truth_elsewhere(prediction, truth, generated)
    fields: dict[str, float | None] = {}
    for direction in AXES:
        fields |= _of_views(prediction, truth, generated, direction)
    shells = shell_correlation(prediction, truth, generated)
    hf_z, hf_y, hf_x = high_frequency_ratios(prediction, truth, generated)
    lines_y, lines_x = line_scores((prediction[z] for z in generated), _sections(truth, generated))
    return Report(
        psnr=psnr(prediction, truth, generated),
        ssim=ssim_3d(prediction, truth, generated),
        hf_z=hf_z,
        hf_y=hf_y,
        hf_x=hf_x,
        fsc=shells.crossing(shells.every),
        fsc50=shells.crossing(shells.every, HALF),
        fsc_z=shells.crossing(shells.z),
        fsc_y=shells.crossing(shells.y),
        fsc_x=shells.crossing(shells.x),
        flicker=flicker(prediction, truth, generated),
        lines_y=lines_y,
        lines_x=lines_x,
        **fields,  # type: ignore[arg-type]
    )


def _of_views(
    prediction: Voxels, truth: Voxels, generated: Sequence[int], direction: Direction
) -> dict[str, float | None]:
    """The fields of a report that are of views in one direction, by name."""
    seen = list(views(prediction, truth, generated, direction))
    return {
        f"ssim_{direction}": float(np.mean([ssim_of_view(v) for v in seen])),
        f"fsim_{direction}": float(np.mean([_fsim_of_view(v) for v in seen])),
        f"gmsd_{direction}": float(np.mean([_gmsd_of_view(v) for v in seen])),
        f"cutoff_{direction}": decorrelation_cutoff(v.prediction for v in seen),
    }


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
