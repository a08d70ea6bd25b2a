"""Fine texture along one axis, whatever its phase, relative to that of ground truth or of sections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import scipy.fft

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.volume import Voxels


def high_frequency_ratios(
    prediction: Voxels, truth: Voxels, planes: Sequence[int]
) -> tuple[float, float, float]:
    """Energy in the upper half of the spectrum along z, y and x, prediction over truth: 1 for equal volumes.

    The upper half: frequencies from 1/4 to 1/2 a voxel. Along y and x the lines of the generated `planes`
    are taken; along z whole columns, measured sections and all, since a spectrum needs the even spacing.
    Each line has its mean removed and a Hann window. Where neither volume has such energy the ratio is 1.
    """
    every_row = range(truth.shape[1])
    return (
        _ratio(upper_energy((v[:, y] for y in every_row), axis=0) for v in (prediction, truth)),
        _ratio(upper_energy((v[z] for z in planes), axis=0) for v in (prediction, truth)),
        _ratio(upper_energy((v[z] for z in planes), axis=1) for v in (prediction, truth)),
    )


def texture_score(planes: Sequence[Voxels], sections: Sequence[Voxels], axis: int) -> float:
    """Mean energy in the upper half of the spectrum of planes along an axis, over that of sections.

    1: as much fine texture as the sections have; more is lines, less is blur. No truth is needed: measured
    sections say how much there should be along each axis, whatever is in them. A network that learnt on xz
    planes, whose rows are coarse, may draw rows like those where it works on xy sections. `planes`,
    `sections`: (row, column) uint8 of equal sizes; `axis`: 0 across rows, 1 along them. inf where sections
    have none and planes do. Raises ConfigError where one of the two is empty.
    """
    if not planes or not sections:
        raise ConfigError("a texture score of no planes or no sections; at least one of each is needed")
    return _ratio(_mean_energy(images, axis) for images in (planes, sections))


def _mean_energy(images: Sequence[Voxels], axis: int) -> float:
    return sum(upper_energy([image], axis) / image.size for image in images) / len(images)


def _ratio(energies: Iterable[float]) -> float:
    prediction, truth = energies
    if truth == 0:
        return 1.0 if prediction == 0 else float("inf")
    return prediction / truth


def upper_energy(images: Iterable[Voxels], axis: int) -> float:
    """Energy above 1/4 a pixel, summed over the lines along `axis` of all images."""
    return sum(_energy_of_image(np.moveaxis(image, axis, 1)) for image in images)


def _energy_of_image(lines: Voxels) -> float:
    length = lines.shape[1]
    centred = lines - lines.mean(axis=1, keepdims=True)
    spectrum = scipy.fft.rfft(centred * np.hanning(length + 2)[1:-1], axis=1)
    upper = spectrum[:, scipy.fft.rfftfreq(length) >= 0.25]
    return float(np.square(np.abs(upper)).sum())
