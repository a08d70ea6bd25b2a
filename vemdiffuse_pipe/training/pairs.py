"""Raw and clean pairs: what restoration of sections is trained on, crop by crop.

    denoise     raw     64 px ->  clean   64 px
    superres    raw     32 px ->  clean   64 px      raw pixels are twice as large; one more on each side

A network that fills gaps is trained to restore on gaps of ratio 2 whose two sections are both the raw
image, doubled for superres; the plane between is the clean one. Pairs come from a microscope, registered
(see registration.py), or are made from a clean volume as it is read: `MadeRaw`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.models.restoration import enlarged
from vemdiffuse_pipe.training.crops import Crop, SlabCrops
from vemdiffuse_pipe.training.gaps import GapBatch
from vemdiffuse_pipe.training.pool import HeldSlab, SlabPool
from vemdiffuse_pipe.training.slabs import evenly
from vemdiffuse_pipe.volume import OnHole, Source, VolumeSpec, Voxels, ignore_hole

Floats = NDArray[np.float32]


def with_noise(clean: Voxels, *, peak: float, read_std: float, seed: int) -> Voxels:
    """A clean volume as a short exposure would show it: uint8, (..., y, x); the same for the same seed.

    Poisson-Gaussian noise: `peak` electrons make white, so a grey level v has the variance 255 v / peak, and
    reading adds `read_std` grey levels of deviation.
    """
    rng = np.random.Generator(np.random.Philox(key=seed))
    noisy = np.empty(clean.shape, np.uint8)
    sections, noisy_sections = (v.reshape(-1, *clean.shape[-2:]) for v in (clean, noisy))
    for section, out in zip(sections, noisy_sections, strict=True):  # one at a time: floats are large
        counts = rng.poisson(section.astype(np.float64) * (peak / 255))
        to_grey(counts * (255 / peak) + read_std * rng.standard_normal(section.shape), out=out)
    return noisy


def halved(clean: Voxels) -> Voxels:
    """The volume at pixels twice as large, (..., y // 2, x // 2) uint8: means of 2 x 2, odd last ones cut."""
    y, x = (n // 2 * 2 for n in clean.shape[-2:])
    even = clean[..., :y, :x].astype(np.float32)
    quarters = [even[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
    return to_grey(sum(quarters[1:], quarters[0]) / np.float32(4))


class MadeRaw:
    """A raw volume that is made of a clean one as it is read: halved for superres, then with noise.

    `peak`, `read_std`: as in `with_noise`; no noise where `peak` is None. What is read is a function of the
    box and of `seed`, so that the same slab holds the same noise, and another one, of the same place, other.
    """

    def __init__(
        self, clean: Source, scale: int, peak: float | None, read_std: float = 0.0, seed: int = 0
    ) -> None:
        self.clean, self.scale = clean, scale
        self.peak, self.read_std, self.seed = peak, read_std, seed

    @property
    def spec(self) -> VolumeSpec:
        """That of the clean volume, of larger pixels."""
        of, k = self.clean.spec, self.scale
        (z, y, x), (dz, dy, dx), (cz, cy, cx) = of.shape, of.frame.voxel_size_nm, of.chunk_shape
        frame = Frame((z, y // k, x // k), (dz, dy * k, dx * k), of.frame.corner_nm)
        return replace(of, frame=frame, chunk_shape=(cz, max(1, cy // k), max(1, cx // k)))

    def read(self, box: Box, on_hole: OnHole = ignore_hole) -> Voxels:
        """The voxels of `box`: uint8, zyx. Raises what reading the clean volume raises."""
        (z, y, x), (z_stop, y_stop, x_stop), k = box.start, box.stop, self.scale
        clean = self.clean.read(Box((z, y * k, x * k), (z_stop, y_stop * k, x_stop * k)), on_hole)
        raw = halved(clean) if k == 2 else clean
        if self.peak is None:
            return raw
        seed = (((z << 40 | y) << 40 | x) ^ self.seed << 64) % (1 << 128)
        return with_noise(raw, peak=self.peak, read_std=self.read_std, seed=seed)


class PairBatches(SlabCrops):
    """Batches by step, of `batch_size` pairs, of volumes that have a raw one.

    Augmentation: flips, and a change of contrast of up to `gain`, because that of a new volume is only
    estimated. The cut of the pool is `rim_px` larger than the clean crops. `grey`: as for `GapBatches`.
    """

    def __init__(
        self,
        pool: SlabPool,
        scale: int,
        batch_size: int,
        gain: float = 0.1,
        least_contrast: float = 0.1,
        grey: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(pool, least_contrast)
        self.scale = scale
        self.batch_size, self.gain, self.grey = batch_size, gain, grey

    def batch(self, step: int, share: slice = slice(None)) -> GapBatch:
        """The batch of `step`, or a share of it: gaps of ratio 2, standardised grey. Raises as `draw`."""
        first = step * self.batch_size
        numbers = range(first, first + self.batch_size)[share]
        raws, cleans = zip(*map(self._pair, numbers), strict=True)
        raw = torch.from_numpy(np.stack(raws))
        sections = enlarged(raw, self.scale)
        return GapBatch(sections.repeat(1, 2, 1, 1), torch.from_numpy(np.stack(cleans)), 2)

    def _pair(self, number: int) -> tuple[Floats, Floats]:
        """Raw, with a pixel of halo for superres, and clean, each (1, y, x), augmented alike."""
        rng, crop, contrast = self.draw(number, self._cut_out)
        mean, std = self.grey or contrast
        flips = (slice(None), *(slice(None, None, int(rng.choice((-1, 1)))) for _ in "yx"))
        gain = rng.uniform(1 - self.gain, 1 + self.gain) / std
        return _standardised(crop.given[flips], mean, gain), _standardised(crop.truth[flips], mean, gain)

    def _cut_out(self, rng: np.random.Generator, held: HeldSlab) -> Crop:
        assert held.raw is not None
        k, halo = self.scale, self.scale - 1
        side = self.cut.rows - rim_px(self.scale)
        z, *place = (evenly(rng, held.slab.first) - held.slab.box.start).tolist()
        y, x = (-(-n // k) + halo for n in place)  # in raw pixels, beyond the halo
        raw = held.raw[z : z + 1, y - halo : y + side // k + halo, x - halo : x + side // k + halo]
        return Crop(raw, held.voxels[z : z + 1, k * y : k * y + side, k * x : k * x + side])


def rim_px(scale: int) -> int:
    """What a cut needs beside its clean crop: the halo of the raw one, and room to start at a raw pixel."""
    return 2 * (scale - 1) * scale + scale - 1


def _standardised(crop: Voxels, mean: float, gain: float) -> Floats:
    return np.ascontiguousarray((crop.astype(np.float32) - mean) * gain, dtype=np.float32)
