"""A stored raw image registered to its clean counterpart, section by section."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import tifffile

from vemdiffuse_pipe.errors import ConfigError, OutputError, SourceError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.storage.grey import Window, to_grey
from vemdiffuse_pipe.storage.unsized import open_unsized
from vemdiffuse_pipe.training.registration import Registration, RegistrationError
from vemdiffuse_pipe.training.registration import register as register_arrays
from vemdiffuse_pipe.volume import Voxels

MAX_PX = 10**8  # of an image: about 100 bytes a pixel are needed


@dataclass(frozen=True, slots=True)
class SectionFit:
    """How well a raw section was registered. Lengths are pixels of the output, rounded to 0.001."""

    n_keypoints: int
    """Keypoints that were matched."""
    n_agreeing: int
    """Those that agree with the homography."""
    valid: float
    """Share of the pixels where the pair can be trusted."""
    before_px: float | None
    """Mean misalignment before dense flow; None where the image is too small for a patch."""
    residual_px: float | None
    """Mean misalignment that is left; None where the image is too small for a patch."""
    residual_p95_px: float | None
    """95th percentile of the misalignment that is left; None where the image is too small for a patch."""


@dataclass(frozen=True, slots=True)
class Registered:
    """What `register` wrote."""

    output: Path
    """The raw image on the pixels of the clean one, a TIFF."""
    valid: Path
    """255 where the pair can be trusted, else 0; a TIFF of the same shape."""
    sections: tuple[SectionFit, ...]
    """One for each section."""


@dataclass(frozen=True, slots=True)
class _Images:
    """Sections of one volume, read one at a time."""

    shape: Zyx
    read: Callable[[int], Voxels]


def register(
    raw: str, clean: str, output: str | Path, *, scale: int = 1, window: Window | None = None
) -> Registered:
    """Register the raw image at `raw` to its clean counterpart at `clean`, and write it to `output`, a TIFF.

    Keypoints and a homography first, then dense optical flow. `scale`: pixels of the output, in clean ones.
    `window`: for images that are not uint8. Raises ConfigError and OutputError before anything is computed;
    RegistrationError for images that do not show the same place.

    Example:

        >>> from vemdiffuse_pipe import register
        >>> fit = register("raw.tif", "clean.tif", "registered.tif").sections[0]
        >>> fit.n_agreeing <= fit.n_keypoints
        True
    """
    output = Path(output)
    images = _opened(raw, window), _opened(clean, window)
    _check(raw, clean, output, images)
    sections = _write_all(*images, output, scale)
    return Registered(output, mask_path(output), tuple(sections))


def mask_path(output: Path) -> Path:
    """Where the mask of trusted pixels goes: OUTPUT.valid.tif."""
    return output.with_name(f"{output.name}.valid.tif")


def _opened(url: str, window: Window | None) -> _Images:
    """The sections of a volume, or the one of a TIFF of a single page, which is no volume elsewhere."""
    try:
        source = open_unsized(url, window)
    except SourceError:
        image = _single_image(Path(url), window)
        if image is None:
            raise
        return _Images((1, *image.shape), lambda section: image)
    _, ny, nx = source.spec.shape
    return _Images(source.spec.shape, lambda u: source.read(Box((u, 0, 0), (u + 1, ny, nx)))[0])


def _single_image(path: Path, window: Window | None) -> Voxels | None:
    """The image of a TIFF of one grey page; None for anything else. Raises SourceError for its dtype."""
    if not path.is_file():
        return None
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            if len(file.pages) != 1 or page.ndim != 2 or prod(page.shape) > MAX_PX:
                return None
            values = page.asarray()
    except (tifffile.TiffFileError, ValueError, OSError, RuntimeError, IndexError):
        return None
    return to_grey(str(values.dtype), window, str(path))(values)


def _check(raw: str, clean: str, output: Path, images: tuple[_Images, _Images]) -> None:
    """Raises ConfigError or OutputError before anything is computed."""
    (n_raw, *raw_yx), (n_clean, *clean_yx) = (image.shape for image in images)
    if n_raw != n_clean:
        raise ConfigError(f"{raw} has {n_raw} sections and {clean} has {n_clean}; as many are needed")
    if max(prod(raw_yx), prod(clean_yx)) > MAX_PX:
        raise ConfigError(f"images of more than {MAX_PX:.0e} px; cut {raw} and {clean} into parts first")
    for path in (output, mask_path(output)):
        if path.exists():
            raise OutputError(f"{path} is there already; choose another output, or move it away")
    if not output.absolute().parent.is_dir():
        raise OutputError(f"{output.parent} is no folder; make it first")


def _write_all(raw: _Images, clean: _Images, output: Path, scale: int) -> list[SectionFit]:
    """Each section registered and written; both files appear when the last section is done."""
    fits: list[SectionFit] = []
    paths = (output, mask_path(output))
    parts = [path.with_name(f".{path.name}.{os.getpid()}.part") for path in paths]
    try:
        with tifffile.TiffWriter(parts[0], bigtiff=True) as images, tifffile.TiffWriter(parts[1]) as masks:
            for registration in _registrations(raw, clean, scale):
                images.write(registration.image, photometric="minisblack", contiguous=True)
                mask = np.where(registration.valid, np.uint8(255), np.uint8(0))
                masks.write(mask, photometric="minisblack", contiguous=True)
                fits.append(_fit(registration))
        for part, path in zip(parts, paths, strict=True):
            part.replace(path)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    return fits


def _registrations(raw: _Images, clean: _Images, scale: int) -> Iterator[Registration]:
    for section in range(raw.shape[0]):
        try:
            yield register_arrays(raw.read(section), clean.read(section), scale=scale)
        except RegistrationError as error:
            raise RegistrationError(f"section {section}: {error}") from None


def _fit(registration: Registration) -> SectionFit:
    residual_px = registration.residual_px
    has_patches = residual_px.size > 0
    return SectionFit(
        n_keypoints=registration.n_keypoints,
        n_agreeing=registration.n_agreeing,
        valid=_rounded(registration.valid.mean()),
        before_px=_rounded(registration.before_px.mean()) if has_patches else None,
        residual_px=_rounded(residual_px.mean()) if has_patches else None,
        residual_p95_px=_rounded(np.percentile(residual_px, 95)) if has_patches else None,
    )


def _rounded(value: np.floating) -> float:
    return round(float(value), 3)
