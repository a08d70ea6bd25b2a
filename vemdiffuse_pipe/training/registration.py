"""Registration of a raw image onto the clean one of the same place, in two stages.

    1   ORB keypoints of both, matched; a homography from those that agree (RANSAC)
    2   dense optical flow between the clean image and the raw one under that homography

    place in raw  =  homography(place in clean + flow)        one resampling, so noise is blurred once

Rublee et al. 2011 (ORB); Fischler & Bolles 1981 (RANSAC); Le Besnerais & Champagnat 2005 (the flow). What
is left is measured by other means than the flow: shifts of patches by their phase (Guizar-Sicairos 2008).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import ORB, match_descriptors
from skimage.measure import ransac
from skimage.registration import optical_flow_ilk, phase_cross_correlation
from skimage.transform import ProjectiveTransform

from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.volume import Voxels

SMOOTH_PX = 1.5  # deviation of the blur before anything is compared: noise has no place to agree on
N_KEYPOINTS = 1500
KEYPOINTS_PX = 1536  # keypoints are looked for in images of at most this side
AGREE_PX = 4.0  # what a keypoint may be off and still agree: the elastic part is not the homography's
MIN_AGREEING = 20
FLOW_RADIUS_PX = 12
FLOW_SMOOTH_PX = 8.0  # deviation; without it 95 % of FIB-25 under noise are within 0.6 px, with it within 0.4
MAX_STRETCH = 3.0
PATCH_PX = 64

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Places = NDArray[np.float64]


class RegistrationError(PlanError):
    """Two images that do not show the same place, as far as can be seen."""


@dataclass(frozen=True, slots=True)
class Registration:
    """A raw image on the grid of the clean one.

    `image`: uint8, of the clean image's shape (divided by the scale). `valid`: where it may be believed, the
    same shape. `places`: (2, y, x) where each pixel of the clean image lies in the raw one, y and x, px.
    `n_agreeing` of `n_keypoints` matched ones agree on the homography. `residual_px`: misalignment that is
    left, of each patch of 64 px that is valid, (n,); `before_px`: the same without registration.
    """

    image: Voxels
    valid: Mask
    places: Places
    n_keypoints: int
    n_agreeing: int
    residual_px: NDArray[np.float64]
    before_px: NDArray[np.float64]


def register(raw: Voxels, clean: Voxels, *, scale: int = 1) -> Registration:
    """`raw` warped onto `clean`, both (y, x) uint8 of any sizes that overlap.

    `scale`: the image that comes back has pixels so many times as large as those of the clean one, which is
    cut to a multiple of it. Raises RegistrationError where too few keypoints agree.
    """
    clean = clean[tuple(slice(n // scale * scale) for n in clean.shape)]
    smooth_raw, smooth_clean = _smooth(raw), _smooth(clean)
    homography, n_keypoints, n_agreeing = _homography(smooth_raw, smooth_clean)
    grid = np.indices(clean.shape, dtype=np.float64)
    projected = _projected(homography, grid)
    seen = _inside(projected, raw.shape)
    flow = _flow(_sampled(smooth_raw, projected), smooth_clean, seen)
    places = _projected(homography, grid + flow)
    valid = _without_rim(seen) & _inside(places, raw.shape)
    return Registration(
        image=to_grey(_sampled(raw.astype(np.float32), _coarser(places, scale), order=3)),
        valid=_coarser(valid.astype(np.float64)[None], scale)[0] == 1.0,
        places=places,
        n_keypoints=n_keypoints,
        n_agreeing=n_agreeing,
        residual_px=_misalignment(_sampled(smooth_raw, places), smooth_clean, valid),
        before_px=_misalignment(_sampled(smooth_raw, grid), smooth_clean, valid),
    )


def _smooth(image: Voxels) -> Image:
    """Blurred, with mean 0 and deviation 1. Raises RegistrationError where there is nothing to see."""
    blurred: Image = ndimage.gaussian_filter(image.astype(np.float32), SMOOTH_PX)
    deviation = float(blurred.std())
    if deviation == 0:
        raise RegistrationError("an image is of one grey level; there is nothing in it to register")
    standard: Image = (blurred - blurred.mean()) / np.float32(deviation)
    return standard


def _homography(raw: Image, clean: Image) -> tuple[ProjectiveTransform, int, int]:
    """Places (x, y) in `clean` to places in `raw`; matched keypoints, and those that agree."""
    (raw_places, raw_words), (clean_places, clean_words) = _keypoints(raw), _keypoints(clean)
    fewest = min(len(raw_words), len(clean_words))
    if fewest < MIN_AGREEING:
        raise RegistrationError(_too_few(fewest, "were found", clean.shape))
    pairs = match_descriptors(clean_words, raw_words, cross_check=True, max_ratio=0.95)
    if len(pairs) < MIN_AGREEING:
        raise RegistrationError(_too_few(len(pairs), "match", clean.shape))
    matched = clean_places[pairs[:, 0], ::-1], raw_places[pairs[:, 1], ::-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # four points on a line: RANSAC draws others
        model, agree = ransac(
            matched, ProjectiveTransform, min_samples=4, residual_threshold=AGREE_PX, max_trials=2000, rng=0
        )
    n_agreeing = 0 if agree is None else int(agree.sum())
    if n_agreeing < MIN_AGREEING or not _is_plausible(model, clean.shape):
        raise RegistrationError(_too_few(n_agreeing, "agree on how one lies on the other", clean.shape))
    return model, len(pairs), n_agreeing


def _too_few(n: int, what: str, shape: tuple[int, ...]) -> str:
    return (
        f"{n} keypoints of the two images {what}, at least {MIN_AGREEING} are needed (clean image "
        f"{shape[0]} x {shape[1]} px); do they show the same place, at about the same pixel size?"
    )


def _keypoints(image: Image) -> tuple[Places, NDArray[np.bool_]]:
    """Places (y, x) of the keypoints of an image, and their descriptors; a large one is looked at reduced."""
    reduction = max(1, -(-max(image.shape) // KEYPOINTS_PX))
    reduced = image[::reduction, ::reduction]
    detector = ORB(n_keypoints=N_KEYPOINTS, fast_threshold=0.05, harris_k=0.05)
    try:
        detector.detect_and_extract(np.clip(reduced / 8 + 0.5, 0, 1).astype(np.float64))
    except RuntimeError:  # not one corner
        return np.empty((0, 2)), np.empty((0, 256), np.bool_)
    places, words = np.asarray(detector.keypoints, np.float64), np.asarray(detector.descriptors, np.bool_)
    return places * reduction, words


def _is_plausible(model: ProjectiveTransform, shape: tuple[int, ...]) -> bool:
    """True unless the homography mirrors, folds, or stretches by more than MAX_STRETCH."""
    (ny, nx) = shape
    corners = np.array([[0, 0], [nx, 0], [nx, ny], [0, ny]], np.float64)
    moved = model(corners)
    sides = np.roll(moved, -1, axis=0) - moved
    turned = sides[:, 0] * np.roll(sides[:, 1], -1) - sides[:, 1] * np.roll(sides[:, 0], -1)
    area = turned / (nx * ny)  # negative where it mirrors or folds
    return bool(((area > MAX_STRETCH**-2) & (area < MAX_STRETCH**2)).all())


def _projected(homography: ProjectiveTransform, places: NDArray[np.floating]) -> Places:
    """Places (2, y, x) under a homography of (x, y)."""
    at = np.stack([places[1].ravel(), places[0].ravel()], axis=1).astype(np.float64)
    moved: Places = homography(at)[:, ::-1].T.reshape(places.shape)
    return moved


def _sampled(image: Image, places: NDArray[np.floating], order: int = 1) -> Image:
    sampled: Image = ndimage.map_coordinates(image, places, order=order, mode="nearest", output=np.float32)
    return sampled


def _coarser(values: Places, scale: int) -> Places:
    """(n, y, x) at pixels `scale` times as large: the mean of those that make one."""
    n, y, x = values.shape
    means: Places = values.reshape(n, y // scale, scale, x // scale, scale).mean(axis=(2, 4))
    return means


def _flow(moved: Image, clean: Image, seen: Mask) -> Places:
    """What `clean` lies off `moved`, (2, y, x) px: elastic distortions are smooth, noise in the flow is not.

    It is smoothed from where the raw image was seen: elsewhere the flow means nothing.
    """
    raw_flow = optical_flow_ilk(
        clean, moved, radius=FLOW_RADIUS_PX, num_warp=5, prefilter=False, dtype=np.float32
    )
    weight = ndimage.gaussian_filter(seen.astype(np.float64), FLOW_SMOOTH_PX)
    total = [ndimage.gaussian_filter(np.where(seen, f, 0.0), FLOW_SMOOTH_PX) for f in raw_flow]
    flow: Places = np.stack(total) / np.maximum(weight, 1e-6)
    return flow


def _inside(places: Places, shape: tuple[int, ...]) -> Mask:
    """Where the raw image has something to show."""
    inside: Mask = np.all([(p >= 0) & (p <= n - 1) for p, n in zip(places, shape, strict=True)], axis=0)
    return inside


def _without_rim(seen: Mask) -> Mask:
    """`seen`, but for a rim that the flow could not see well."""
    kept: Mask = ndimage.binary_erosion(seen, iterations=FLOW_RADIUS_PX, border_value=0)
    return kept


def _misalignment(moved: Image, clean: Image, valid: Mask) -> NDArray[np.float64]:
    """How far each valid patch of 64 px, one every 32 px, is shifted, px: (n,), in yx order."""
    shifts = []
    for y in range(0, clean.shape[0] - PATCH_PX + 1, PATCH_PX // 2):
        for x in range(0, clean.shape[1] - PATCH_PX + 1, PATCH_PX // 2):
            patch = np.s_[y : y + PATCH_PX, x : x + PATCH_PX]
            if valid[patch].all() and moved[patch].std() > 0 and clean[patch].std() > 0:
                window = np.hanning(PATCH_PX)[:, None] * np.hanning(PATCH_PX)
                a, b = ((v[patch] - v[patch].mean()) * window for v in (clean, moved))
                shift, *_ = phase_cross_correlation(a, b, upsample_factor=20, normalization=None)
                shifts.append(float(np.hypot(*shift)))
    return np.array(shifts)
