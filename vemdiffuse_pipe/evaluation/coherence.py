"""What single planes do not show: flicker from plane to plane, and lines that measured sections lack."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from vemdiffuse_pipe.volume import Voxels

FINE = 0.25  # from a quarter of Nyquist on: finer than what sections and planes must share anyway
N_RINGS = 6
WEDGE_DEGREES = 15.0


def flicker(prediction: Voxels, truth: Voxels, planes: Sequence[int]) -> float | None:
    """Mean absolute difference of neighbouring generated planes, over the truth's: 1 is right; zyx.

    Only pairs of which both are listed count, so steps into measured sections do not. Above 1 planes
    flicker, below 1 they change too little. None where no two listed planes are neighbours (r = 2).
    """
    listed = set(planes)
    lower = [z for z in planes if z + 1 in listed]
    if not lower:
        return None
    ours, true = (sum(_step(v[z], v[z + 1]) for z in lower) for v in (prediction, truth))
    return _ratio(ours, true)


def line_scores(generated: Iterable[Voxels], measured: Iterable[Voxels]) -> tuple[float, float]:
    """How much more of the planes' fine energy lies along y, and along x, than in sections: 1 is right.

    `generated`, `measured`: planes and sections, (y, x). Lines across an axis put their energy into a
    narrow wedge of the spectrum around that axis (Muench, Trtik, Marone & Stampanoni, Opt. Express
    17:8567, 2009). The score of an axis is the share of the energy that lies within 15 degrees of it, over
    the same share in measured sections: whatever texture tissue and microscope give to sections cancels,
    and what a network carried over from the axis along which it was trained stands out. It needs no truth.
    Shares are taken in 6 rings from a quarter of Nyquist to Nyquist and averaged, so that neither blur nor
    a steep spectrum moves the score. Each image has its mean removed and a Hann window.
    """
    ours, theirs = _wedge_shares(generated), _wedge_shares(measured)
    return _ratio(ours[0], theirs[0]), _ratio(ours[1], theirs[1])


def _step(a: Voxels, b: Voxels) -> float:
    return float(np.abs(a.astype(np.int16) - b).mean())


def _wedge_shares(images: Iterable[Voxels]) -> tuple[float, float]:
    """Shares of the fine energy of all images near the y axis and near the x axis; 0 without any."""
    energies = sum((_energies(image) for image in images), np.zeros((3, N_RINGS)))
    filled = energies[2] > 0
    if not filled.any():
        return 0.0, 0.0
    along_y, along_x = (energies[:2, filled] / energies[2, filled]).mean(axis=1)
    return float(along_y), float(along_x)


def _energies(image: Voxels) -> NDArray[np.float64]:
    """Energy in each ring of fine frequencies: near the y axis, near the x axis, all: (3, N_RINGS)."""
    hann_y, hann_x = (np.hanning(n + 2)[1:-1] for n in image.shape)
    centred = (image - image.mean()) * hann_y[:, None] * hann_x
    fy, fx = (np.abs(scipy.fft.fftfreq(n)) * 2 for n in image.shape)
    radius, angle = np.hypot(fy[:, None], fx), np.arctan2(fy[:, None], fx)
    power = np.square(np.abs(scipy.fft.fft2(centred)))
    near, fine = math.radians(WEDGE_DEGREES), (radius >= FINE) & (radius < 1)
    ring = ((radius - FINE) / (1 - FINE) * N_RINGS).astype(np.int64)
    parts = (fine & (angle >= math.pi / 2 - near), fine & (angle <= near), fine)
    return np.stack([np.bincount(ring[part], power[part], N_RINGS) for part in parts])


def _ratio(ours: float, theirs: float) -> float:
    if theirs == 0:
        return 1.0 if ours == 0 else math.inf
    return ours / theirs
