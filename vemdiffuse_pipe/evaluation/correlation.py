"""Fourier shell correlation: up to which frequency a prediction agrees with the truth.

Harauz & van Heel, Optik 73:146, 1986; van Heel & Schatz, J. Struct. Biol. 151:250, 2005. In every shell of
spatial frequencies the two spectra are correlated; where the correlation falls below a threshold the
agreement ends. 1/7: Rosenthal & Henderson, J. Mol. Biol. 333:721, 2003. 1/2 is the stricter custom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from vemdiffuse_pipe.volume import Voxels

Floats = NDArray[np.float64]

SEVENTH, HALF = 1 / 7, 1 / 2
MAX_SIDE = 256


@dataclass(frozen=True, slots=True)
class ShellCorrelation:
    """The correlation in each shell, over all directions and near each axis.

    `frequencies`: middles of the shells, (n,), as fractions of Nyquist. `every`: (n,), all directions.
    `z`, `y`, `x`: (n,), the frequencies whose largest component is that one.
    """

    frequencies: Floats
    every: Floats
    z: Floats
    y: Floats
    x: Floats

    def crossing(self, curve: Floats, threshold: float = SEVENTH) -> float:
        """Where `curve` first falls below `threshold`: a fraction of Nyquist, 1 where it never does."""
        return crossing(self.frequencies, curve, threshold)


def crossing(frequencies: Floats, curve: Floats, threshold: float) -> float:
    """Where `curve` first falls below `threshold`: a fraction of Nyquist, 1 where it never does.

    Linear between `frequencies`, the middles of shells or rings; below the first one the correlation is
    taken as 1.
    """
    below = np.flatnonzero(curve < threshold)
    if not below.size:
        return 1.0
    i = int(below[0])
    f0, c0 = (frequencies[i - 1], curve[i - 1]) if i else (0.0, 1.0)
    return float(f0 + (frequencies[i] - f0) * (c0 - threshold) / (c0 - curve[i]))


def shell_correlation(prediction: Voxels, truth: Voxels, planes: Sequence[int]) -> ShellCorrelation:
    """Fourier shell correlation of two volumes, from their generated `planes` alone; zyx.

    In both volumes a plane that is not listed becomes what lies between its own volume's listed neighbours,
    linearly: a measured section, equal on both sides, would correlate up to Nyquist. Beyond the first and
    the last listed plane the volumes are cut, and to the middle 256 voxels a side. The mean is removed; a
    Hann window along each axis keeps the edges out. Shells are as wide as the shortest side resolves.
    """
    a, b = (_spectrum(_middle(_own_planes(v, planes))) for v in (prediction, truth))
    shape = _middle(_own_planes(truth, planes)).shape
    frequencies = np.meshgrid(*(_frequencies(shape, axis) for axis in range(3)), indexing="ij", sparse=True)
    n_shells = max(1, min(shape) // 2)
    radius = np.sqrt(reduce(np.add, (f**2 for f in frequencies)))
    shell = np.minimum((radius * n_shells).astype(np.int64), n_shells)
    shell[0, 0, 0] = n_shells  # the mean, which was removed, and the corners beyond Nyquist: no shell of ours
    twice = np.ones(shell.shape)
    twice[..., 1 : (shape[2] + 1) // 2] = 2  # of a real volume half of the spectrum is kept
    largest = reduce(np.maximum, (abs(f) for f in frequencies))
    curves = [
        _correlate(a, b, shell, twice * near, n_shells)
        for near in (np.ones_like(radius), *(np.isclose(abs(f), largest) for f in frequencies))
    ]
    return ShellCorrelation((np.arange(n_shells) + 0.5) / n_shells, *curves)


def resolution_nm(fraction_of_nyquist: float, voxel_nm: float) -> float:
    """The period, in nm, of a frequency given as a fraction of Nyquist; inf for 0."""
    return 2 * voxel_nm / fraction_of_nyquist if fraction_of_nyquist else float("inf")


def _own_planes(volume: Voxels, planes: Sequence[int]) -> NDArray[np.float32]:
    """The volume from its first to its last listed plane, other planes interpolated from those."""
    listed = np.asarray(planes)
    wanted = np.arange(listed[0], listed[-1] + 1)
    above = np.searchsorted(listed, wanted)
    below = np.maximum(above - (listed[above] != wanted), 0)
    gap = np.maximum(listed[above] - listed[below], 1)
    share = ((wanted - listed[below]) / gap).astype(np.float32)[:, None, None]
    low, high = (volume[listed[i]].astype(np.float32) for i in (below, above))
    own: NDArray[np.float32] = low + share * (high - low)
    return own


def _middle(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    starts = (max(0, (n - MAX_SIDE) // 2) for n in volume.shape)
    return volume[tuple(slice(s, s + MAX_SIDE) for s in starts)]


def _spectrum(volume: NDArray[np.float32]) -> NDArray[np.complex64]:
    windowed = volume - volume.mean(dtype=np.float64).astype(np.float32)
    for axis, n in enumerate(volume.shape):
        hann = np.hanning(n + 2)[1:-1].astype(np.float32)
        windowed *= hann.reshape([-1 if i == axis else 1 for i in range(3)])
    spectrum: NDArray[np.complex64] = scipy.fft.rfftn(windowed)
    return spectrum


def _frequencies(shape: tuple[int, ...], axis: int) -> Floats:
    """Along one axis of the spectrum, as fractions of Nyquist."""
    found: Floats = (scipy.fft.rfftfreq if axis == 2 else scipy.fft.fftfreq)(shape[axis]) * 2
    return found


def _correlate(
    a: NDArray[np.complex64], b: NDArray[np.complex64], shell: NDArray[np.int64], weight: Floats, n: int
) -> Floats:
    """Re sum(a b*) / sqrt(sum |a|^2 sum |b|^2) in each shell; 1 where both are empty, 0 where one is."""

    def total(values: NDArray[np.float32]) -> Floats:
        sums: Floats = np.bincount(shell.ravel(), (values * weight).ravel(), n + 1)[:n].astype(np.float64)
        return sums

    shared = total((a * b.conj()).real)
    power = np.sqrt(total(np.square(np.abs(a))) * total(np.square(np.abs(b))))
    empty = total(np.square(np.abs(a - b))) == 0
    return np.where(empty, 1.0, np.divide(shared, power, out=np.zeros(n), where=power > 0))
