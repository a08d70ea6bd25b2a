"""Images made against images measured, place by place: what single pairs of images say, pooled.

Twice: as they are, and after a Gaussian low-pass, which takes most of the noise of a microscope away and
leaves structure. A measured image has noise of its own, which bounds the PSNR of every answer alike:
smoothing gains there without knowing anything, and not after the low-pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy import ndimage

from vemdiffuse_pipe.evaluation.correlation import SEVENTH, crossing
from vemdiffuse_pipe.evaluation.fsim import fsim
from vemdiffuse_pipe.evaluation.spectrum import upper_energy
from vemdiffuse_pipe.evaluation.structure import ssim_of_view
from vemdiffuse_pipe.evaluation.views import View
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.volume import Voxels

LOW_PASS_SIGMA_PX = 4.0
N_RINGS = 48

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of all places together. `psnr`: dB; `psnr_low`, `ssim_low`, `fsim_low`: after the low-pass.

    `frc`: up to which frequency the Fourier ring correlation stays above 1/7, a fraction of Nyquist. `hf_y`,
    `hf_x`: energy of fine texture along that axis over the measured images'. `errors_low`: mean square error
    after the low-pass at each place, grey levels squared, to compare answers place by place.
    """

    psnr: float
    ssim: float
    fsim: float
    psnr_low: float
    ssim_low: float
    fsim_low: float
    frc: float
    hf_y: float
    hf_x: float
    errors_low: tuple[float, ...]

    def as_dict(self) -> dict[str, object]:
        """By name, for JSON; None in place of what is infinite."""
        values = asdict(self).items()
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values}


def agreement(made: Sequence[Voxels], measured: Sequence[Voxels]) -> Agreement:
    """How well images agree with those measured at the same places: (y, x) uint8, at least one, all alike."""
    low_made, low_measured = (list(map(_low_passed, images)) for images in (made, measured))
    errors, errors_low = _errors(made, measured), _errors(low_made, low_measured)
    curve = ring_correlation(made, measured)
    return Agreement(
        psnr=_psnr(errors),
        ssim=_mean_ssim(made, measured),
        fsim=_mean_fsim(made, measured),
        psnr_low=_psnr(errors_low),
        ssim_low=_mean_ssim(low_made, low_measured),
        fsim_low=_mean_fsim(low_made, low_measured),
        frc=crossing((np.arange(len(curve)) + 0.5) / len(curve), curve, SEVENTH),
        hf_y=_texture(made, measured, 0),
        hf_x=_texture(made, measured, 1),
        errors_low=tuple(errors_low),
    )


def ring_correlation(made: Sequence[Voxels], measured: Sequence[Voxels]) -> Floats:
    """Fourier ring correlation, spectra of all places pooled: (rings,), each as wide as the others.

    Saxton & Baumeister, J. Microsc. 127:127, 1982. Each image has its mean removed and a Hann window.
    """
    n_rings = min(N_RINGS, min(measured[0].shape) // 2)
    fy, fx = (scipy.fft.fftfreq(n) * 2 for n in measured[0].shape)
    ring = np.minimum((np.hypot(fy[:, None], fx) * n_rings).astype(np.int64), n_rings).ravel()
    shared, ours, theirs = np.zeros((3, n_rings + 1))
    for a, b in ((_spectrum(a), _spectrum(b)) for a, b in zip(made, measured, strict=True)):
        shared += np.bincount(ring, (a * b.conj()).real.ravel(), n_rings + 1)
        ours += np.bincount(ring, np.square(np.abs(a)).ravel(), n_rings + 1)
        theirs += np.bincount(ring, np.square(np.abs(b)).ravel(), n_rings + 1)
    power = np.sqrt(ours * theirs)
    curve: Floats = np.divide(shared, power, out=np.ones(n_rings + 1), where=power > 0)[:n_rings]
    return curve


def _spectrum(image: Voxels) -> NDArray[np.complex128]:
    hann_y, hann_x = (np.hanning(n + 2)[1:-1] for n in image.shape)
    spectrum: NDArray[np.complex128] = scipy.fft.fft2((image - image.mean()) * hann_y[:, None] * hann_x)
    return spectrum


def _low_passed(image: Voxels) -> Voxels:
    return to_grey(ndimage.gaussian_filter(image.astype(np.float32), LOW_PASS_SIGMA_PX))


def _errors(made: Sequence[Voxels], measured: Sequence[Voxels]) -> list[float]:
    pairs = zip(made, measured, strict=True)
    return [float(np.square(a.astype(np.float64) - b).mean()) for a, b in pairs]


def _psnr(errors: Sequence[float]) -> float:
    mean = float(np.mean(errors))
    return 10 * math.log10(255**2 / mean) if mean > 0 else math.inf


def _mean_ssim(made: Sequence[Voxels], measured: Sequence[Voxels]) -> float:
    return float(np.mean([ssim_of_view(View(a, b, _rows(b))) for a, b in zip(made, measured, strict=True)]))


def _mean_fsim(made: Sequence[Voxels], measured: Sequence[Voxels]) -> float:
    pairs = zip(made, measured, strict=True)
    return float(np.mean([fsim(a.astype(np.float32), b.astype(np.float32), _rows(b)) for a, b in pairs]))


def _rows(image: Voxels) -> NDArray[np.bool_]:
    return np.ones(len(image), np.bool_)


def _texture(made: Sequence[Voxels], measured: Sequence[Voxels], axis: int) -> float:
    ours, theirs = (upper_energy(images, axis) for images in (made, measured))
    if theirs == 0:
        return 1.0 if ours == 0 else math.inf
    return ours / theirs
