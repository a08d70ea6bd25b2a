"""FSIM: how well the features that the eye uses are kept, from phase congruency and gradient.

Zhang, Zhang, Mou & Zhang, IEEE Trans. Image Process. 20:2378, 2011, with the phase congruency of
Kovesi, Videre 1(3), 1999. Images are in grey levels, 0..255.

The paper first averages an image down by max(1, round(shorter side / 256)). Here no side is longer than
256 px (`views.WINDOW_PX`), so the factor is 1 for every image, whatever the shape of the volume.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float32]

N_SCALES = 4
N_ORIENTATIONS = 4
MIN_WAVELENGTH_PX = 6.0
WAVELENGTH_RATIO = 2.0
RADIAL_BANDWIDTH = 0.55
ANGULAR_SIGMA = np.pi / N_ORIENTATIONS / 1.2
NOISE_DEVIATIONS = 2.0
NOISE_RESCALE = 1.7
PHASE_CONSTANT = 0.85
GRADIENT_CONSTANT = 160.0
SCHARR = np.array([[3, 0, -3], [10, 0, -10], [3, 0, -3]], np.float32) / 16
TINY = 1e-4


def fsim(prediction: Image, truth: Image, rows: NDArray[np.bool_]) -> float:
    """FSIM pooled over `rows`: 1 for equal images. Zhang et al. 2011, section III-B.

    `prediction`, `truth`: (y, x) grey levels 0..255, float32. `rows`: (y,), the rows that count; the maps
    are computed on the whole image. Where neither image has a feature, all pixels weigh the same.
    """
    phase_a, phase_b = phase_congruency(prediction), phase_congruency(truth)
    similarity = _similarity(phase_a, phase_b, PHASE_CONSTANT) * _similarity(
        _gradient(prediction), _gradient(truth), GRADIENT_CONSTANT
    )
    weight = np.maximum(phase_a, phase_b)[rows].astype(np.float64)
    if not weight.any():
        weight = np.ones_like(weight)
    return float((similarity[rows] * weight).sum() / weight.sum())


def phase_congruency(image: Image) -> Image:
    """How far the Fourier components agree in phase at each pixel: (y, x) float32 in 0..1.

    Kovesi 1999, with the filters of Zhang et al. 2011, section II-A: energy over amplitude, each summed over
    scales and orientations. Noise is taken from the finest scale, whose amplitude has a Rayleigh
    distribution where there is noise only.
    """
    bank = _log_gabor_bank(image.shape)
    spectrum = scipy.fft.fft2(image)
    energy = np.zeros(image.shape, np.float32)
    amplitude = np.full(image.shape, TINY, np.float32)
    for filters, noise_gain in zip(bank.filters, bank.noise_gains, strict=True):
        responses = scipy.fft.ifft2(spectrum * filters)
        magnitudes = np.abs(responses)
        energy += np.maximum(_phase_energy(responses) - _noise_threshold(magnitudes[0], noise_gain), 0)
        amplitude += magnitudes.sum(axis=0)
    return energy / amplitude


def _phase_energy(responses: NDArray[np.complex64]) -> Image:
    """Responses of all scales projected on their mean phase, less their scatter around it."""
    total = responses.sum(axis=0)
    mean_phase = total / (np.abs(total) + TINY)
    turned = responses * mean_phase.conj()
    energy: Image = (turned.real - np.abs(turned.imag)).sum(axis=0)
    return energy


def _noise_threshold(finest: Image, noise_gain: float) -> float:
    """Energy that noise alone would reach: mean + k deviations of its Rayleigh distribution.

    `finest`: magnitudes at the finest scale; their median square is ln 2 times the mean square.
    """
    mean_square = float(np.median(np.square(finest))) / np.log(2)
    rayleigh = np.sqrt(mean_square * noise_gain)
    return float(rayleigh * (np.sqrt(np.pi / 2) + NOISE_DEVIATIONS * np.sqrt(2 - np.pi / 2)) / NOISE_RESCALE)


@dataclass(frozen=True, slots=True)
class _Bank:
    """Log-Gabor filters of one image shape, each (scale, y, x) float32, one for each orientation.

    `noise_gains`: energy of the even part of all scales together over that of the finest scale: what
    turns the noise power seen at the finest scale into that of the summed response (Parseval).
    """

    filters: tuple[NDArray[np.float32], ...]
    noise_gains: tuple[float, ...]


@lru_cache(maxsize=8)
def _log_gabor_bank(shape: tuple[int, int]) -> _Bank:
    fy, fx = np.meshgrid(scipy.fft.fftfreq(shape[0]), scipy.fft.fftfreq(shape[1]), indexing="ij")
    radius, angle = np.hypot(fy, fx), np.arctan2(-fy, fx)
    filters = tuple(
        (_radial_parts(radius) * _angular_part(angle, np.pi * i / N_ORIENTATIONS)).astype(np.float32)
        for i in range(N_ORIENTATIONS)
    )
    return _Bank(filters, tuple(_noise_gain(f) for f in filters))


def _radial_parts(radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussians on a logarithmic frequency axis, without the corners of the spectrum: (scale, y, x)."""
    centres = 1 / (MIN_WAVELENGTH_PX * WAVELENGTH_RATIO ** np.arange(N_SCALES))
    safe = np.where(radius > 0, radius, 1)
    distance = np.log(safe / centres[:, None, None]) / np.log(RADIAL_BANDWIDTH)
    low_pass = 1 / (1 + (radius / 0.45) ** 30)
    parts: NDArray[np.float64] = np.exp(-(distance**2) / 2) * low_pass * (radius > 0)
    return parts


def _angular_part(angle: NDArray[np.float64], centre: float) -> NDArray[np.float64]:
    distance = np.abs(np.angle(np.exp(1j * (angle - centre))))
    part: NDArray[np.float64] = np.exp(-(distance**2) / (2 * ANGULAR_SIGMA**2))
    return part


def _noise_gain(filters: NDArray[np.float32]) -> float:
    total = filters.sum(axis=0, dtype=np.float64)
    mirrored = np.roll(total[::-1, ::-1], (1, 1), (0, 1))
    return float(np.square((total + mirrored) / 2).sum() / np.square(filters[0], dtype=np.float64).sum())


def _gradient(image: Image) -> Image:
    """Scharr gradient magnitude; black outside the image, as in the paper's convolution."""
    across = ndimage.convolve(image, SCHARR, mode="constant")
    down = ndimage.convolve(image, SCHARR.T, mode="constant")
    magnitude: Image = np.hypot(across, down)
    return magnitude


def _similarity(a: NDArray[np.floating], b: NDArray[np.floating], constant: float) -> Image:
    similar: Image = (2 * a * b + constant) / (np.square(a) + np.square(b) + constant)
    return similar
