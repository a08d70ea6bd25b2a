"""Raw and clean pairs: what restoration of sections is trained on.

    denoise     raw    256 px ->  clean  256 px      crops every 196 px, so that neighbours share 60
    superres    raw    128 px ->  clean  256 px      raw pixels are twice as large

A network that fills gaps is trained to restore on gaps of ratio 2 whose two sections are both the raw
image, doubled for superres; the plane between is the clean one. Pairs come from a microscope, registered
(see registration.py), or are made from a clean volume: `with_noise`, `halved`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.models.restoration import doubled
from vemdiffuse_pipe.training.gaps import GapBatch
from vemdiffuse_pipe.volume import Voxels

CROP_PX = 256  # Lu et al. 2024
STRIDE_PX = 196
SCALE = {"denoise": 1, "superres": 2}

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
PairTask = Literal["denoise", "superres"]


def crop_starts(n_px: int, crop_px: int = CROP_PX, stride_px: int = STRIDE_PX) -> list[int]:
    """Where crops begin along an axis: every `stride_px`, the last one flush with the end.

    Raises PlanError where not one crop fits.
    """
    if n_px < crop_px:
        raise PlanError(f"an axis of {n_px} px holds no crop of {crop_px} px; give a smaller crop")
    starts = list(range(0, n_px - crop_px + 1, stride_px))
    return starts if starts[-1] == n_px - crop_px else [*starts, n_px - crop_px]


def cut_pairs(
    raw: Voxels,
    clean: Voxels,
    valid: Mask | None = None,
    *,
    scale: int = 1,
    crop_px: int = CROP_PX,
    stride_px: int = STRIDE_PX,
) -> Iterator[tuple[Voxels, Voxels]]:
    """Crops (raw, clean) of a registered pair of images, in yx order; those that are not all valid left out.

    `clean`: (y, x) uint8; `raw`: the same divided by `scale`; `valid`: where the pair may be believed, as
    `clean`. `crop_px`, `stride_px`: of the clean image, multiples of `scale`. Raises PlanError where the
    images do not fit each other or hold no crop.
    """
    if tuple(scale * n for n in raw.shape) != clean.shape:
        raise PlanError(
            f"a raw image of {raw.shape} px at scale {scale} does not fit a clean one of {clean.shape}"
        )
    if crop_px % scale or stride_px % scale or any(n % scale for n in clean.shape):
        raise PlanError(f"crop_px {crop_px} and stride_px {stride_px} must be multiples of the scale {scale}")
    for y in crop_starts(clean.shape[0], crop_px, stride_px):
        for x in crop_starts(clean.shape[1], crop_px, stride_px):
            here = np.s_[y : y + crop_px, x : x + crop_px]
            if valid is None or valid[here].all():
                there = np.s_[y // scale : (y + crop_px) // scale, x // scale : (x + crop_px) // scale]
                yield raw[there], clean[here]


def with_noise(clean: Voxels, *, peak: float, read_std: float, seed: int) -> Voxels:
    """A clean volume as a short exposure would show it: uint8, any shape; the same for the same seed.

    Poisson-Gaussian noise: `peak` electrons make white, so a grey level v has the variance 255 v / peak, and
    reading adds `read_std` grey levels of deviation.
    """
    rng = np.random.Generator(np.random.Philox(key=seed))
    counts = rng.poisson(clean.astype(np.float64) * (peak / 255))
    return to_grey(counts * (255 / peak) + read_std * rng.standard_normal(clean.shape))


def halved(clean: Voxels) -> Voxels:
    """The volume at pixels twice as large, (..., y // 2, x // 2) uint8: means of 2 x 2, odd last ones cut."""
    y, x = (n // 2 * 2 for n in clean.shape[-2:])
    even = clean[..., :y, :x].astype(np.float32)
    quarters = [even[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
    return to_grey(sum(quarters[1:], quarters[0]) / np.float32(4))


@dataclass(frozen=True, slots=True)
class PairVolume:
    """Registered volumes: `raw` and `clean`, uint8 zyx, with mean and deviation of the raw grey levels."""

    raw: Voxels
    clean: Voxels
    mean: float
    std: float

    @classmethod
    def of(cls, raw: Voxels, clean: Voxels) -> PairVolume:
        """The pair with its contrast measured as a run measures it: black and white left out."""
        inside = raw[(raw > 0) & (raw < 255)]
        return cls(raw, clean, float(inside.mean()), float(inside.std()) or 1.0)


@dataclass(frozen=True, slots=True)
class PairSampler:
    """Batches of random crops of `volumes`, in proportion to their size; each is a function of seed and step.

    Augmentation: flips, and a change of contrast of up to `gain`, because that of a new volume is only
    estimated. `crop_px`: of the clean crops.
    """

    volumes: Sequence[PairVolume]
    task: PairTask
    crop_px: int = 64
    batch_size: int = 16
    seed: int = 0
    gain: float = 0.1

    def __post_init__(self) -> None:
        scale = SCALE[self.task]
        for volume in self.volumes:
            (z, *raw), (clean_z, *clean) = volume.raw.shape, volume.clean.shape
            if z != clean_z or [scale * n for n in raw] != clean:
                raise PlanError(
                    f"raw voxels of {volume.raw.shape} and clean ones of {volume.clean.shape} are no pair "
                    f"for {self.task}: clean y and x must be {scale} times the raw ones"
                )
            if min(clean) < self.crop_px + 2 * scale or self.crop_px % scale:
                raise PlanError(
                    f"pairs of {volume.clean.shape} voxels hold no crop of {self.crop_px} px with its rim"
                )

    @property
    def n_bytes(self) -> tuple[int, int]:
        """(0, 0): the volumes are in memory, nothing is decoded."""
        return 0, 0

    @property
    def n_rejected(self) -> int:
        """None: every crop is taken."""
        return 0

    def close(self) -> None:
        """Nothing is open."""

    def batch(self, step: int, share: slice = slice(None)) -> GapBatch:
        """The batch of `step`, or a share of it: gaps of ratio 2, standardised grey."""
        rng = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, 0, step]))
        raws, cleans = zip(*[self._draw(rng) for _ in range(self.batch_size)][share], strict=True)
        raw = torch.from_numpy(np.stack(raws))[:, None]
        given = doubled(raw) if self.task == "superres" else raw
        return GapBatch(given.repeat(1, 2, 1, 1), torch.from_numpy(np.stack(cleans))[:, None], 2)

    def _draw(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """One crop: raw (with a pixel of halo for superres) and clean, augmented alike."""
        sizes = np.array([v.clean.size for v in self.volumes], dtype=float)
        volume = self.volumes[int(rng.choice(len(sizes), p=sizes / sizes.sum()))]
        scale = SCALE[self.task]
        halo, size = scale - 1, self.crop_px // scale
        z = int(rng.integers(len(volume.raw)))
        y, x = (int(rng.integers(halo, n - size - halo + 1)) for n in volume.raw.shape[1:])
        raw = volume.raw[z, y - halo : y + size + halo, x - halo : x + size + halo]
        clean = volume.clean[z, scale * y : scale * (y + size), scale * x : scale * (x + size)]
        flips = tuple(slice(None, None, int(rng.choice((-1, 1)))) for _ in "yx")
        gain = rng.uniform(1 - self.gain, 1 + self.gain) / volume.std
        return _standardised(raw[flips], volume.mean, gain), _standardised(clean[flips], volume.mean, gain)


def _standardised(crop: Voxels, mean: float, gain: float) -> Floats:
    return np.ascontiguousarray((crop.astype(np.float32) - mean) * gain, dtype=np.float32)
