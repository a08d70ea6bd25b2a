"""Decorrelation analysis: the highest frequency that an image really holds, from that image alone.

Descloux, Grussmayer & Radenovic, Nature Methods 16:918, 2019. The image is correlated with itself after
every frequency was given the same amplitude and those above a radius r were cut away:

    d(r) = sum_{k < r} |I(k)| / sqrt(sum_k |I(k)|^2  N(r)),       N(r): how many frequencies lie below r

d rises as long as the ring at r brings signal, and falls where it brings little for its N. The peak moves
outwards as low frequencies are filtered away, until there is nothing but noise; the outermost peak is the
cutoff.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from vemdiffuse_pipe.volume import Voxels

Floats = NDArray[np.float64]

N_RINGS = 128
N_FILTERS = 40
NARROWEST_PX = 0.15  # deviation of the Gaussian whose blur is subtracted: from a quarter image down to this
MIN_DROP = 0.001  # by how much the curve must fall behind a peak, as in the paper: less is noise
TAPER = 0.1  # of each side fades to the mean, against the cross that edges draw in the spectrum


@dataclass(frozen=True, slots=True)
class _Rings:
    """Sums over rings of the spectrum within Nyquist: (n,) each; `radius` as fractions of Nyquist."""

    radius: Floats
    amplitude: Floats
    power: Floats
    count: Floats
    longest_px: int

    def peak(self, sigma_px: float) -> float | None:
        """Where d peaks after a Gaussian high-pass; None where nowhere. sigma_px: inf for no filter."""
        passed = 1 - np.exp(-2 * (math.pi * sigma_px * self.radius / 2) ** 2)
        total = (self.power * passed**2).sum()
        if total <= 0:
            return None
        curve = np.cumsum(self.amplitude * passed) / np.sqrt(total * np.maximum(np.cumsum(self.count), 1))
        return self._outermost(curve)

    def _outermost(self, curve: Floats) -> float | None:
        """The edge of the ring at the largest value behind which the curve falls, None if there is none."""
        length = len(curve)
        while length > 1:
            at = int(curve[:length].argmax())
            if at == 0:
                return None
            if at < length - 1 and curve[at] - curve[at:].min() >= MIN_DROP:
                return (at + 1) / len(curve)
            length = at
        return None


def decorrelation_cutoff(images: Iterable[Voxels]) -> float | None:
    """The highest frequency that the images hold, as a fraction of Nyquist; None where no peak is found.

    `images`: (y, x) of any real dtype, of one shape; their spectra are pooled ring by ring, so that many
    small views say what one large image would. A constant image, and one of pure noise up to Nyquist, has
    no cutoff. The period in nm is 2 * voxel_nm / cutoff.
    """
    rings = _pooled(_rings(image) for image in images)
    sigmas = np.geomspace(rings.longest_px / 4, NARROWEST_PX, N_FILTERS)
    peaks = [rings.peak(math.inf), *(rings.peak(float(s)) for s in sigmas)]
    return max((p for p in peaks if p is not None), default=None)


def _rings(image: Voxels) -> _Rings:
    amplitude = np.abs(scipy.fft.fft2(_faded(image))).ravel()
    fy, fx = (scipy.fft.fftfreq(n) * 2 for n in image.shape)
    radius = np.hypot(fy[:, None], fx).ravel()
    inside = (radius < 1) & (radius > 0)
    n = min(N_RINGS, max(2, min(image.shape) // 2))
    ring = (radius[inside] * n).astype(np.int64)
    return _Rings(
        (np.arange(n) + 0.5) / n,
        np.bincount(ring, amplitude[inside], n).astype(np.float64),
        np.bincount(ring, np.square(amplitude[inside]), n).astype(np.float64),
        np.bincount(ring, minlength=n).astype(np.float64),
        max(image.shape),
    )


def _pooled(rings: Iterator[_Rings]) -> _Rings:
    total = next(rings)
    for r in rings:
        total = _Rings(
            total.radius,
            total.amplitude + r.amplitude,
            total.power + r.power,
            total.count + r.count,
            total.longest_px,
        )
    return total


def _faded(image: Voxels) -> Floats:
    """The image without its mean, fading to 0 at its edges."""
    faded: Floats = image - image.mean(dtype=np.float64)
    for axis, n in enumerate(image.shape):
        fade = np.minimum(1, (np.minimum(np.arange(n), np.arange(n)[::-1]) + 1) / (TAPER * n + 1))
        faded = faded * np.expand_dims(np.sin(fade * math.pi / 2) ** 2, 1 - axis)
    return faded
