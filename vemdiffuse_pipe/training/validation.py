"""How good a network is where it never looked: the real sampler on gaps that were held back.

    seen     gaps along the axis that was trained on, whose planes were measured: PSNR and texture
    in use   gaps between two sections, as `run` fills them: no truth, but lines show (evaluation.spectrum)

Along z, in an isotropic volume, they are the same gaps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.evaluation.spectrum import texture_score
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.models.noise import voxel_noise
from vemdiffuse_pipe.models.protocol import GapView, Model
from vemdiffuse_pipe.training.gaps import resampled
from vemdiffuse_pipe.training.slabs import CropSpec, generator
from vemdiffuse_pipe.volume import Source, Voxels

SEED = 1


@dataclass(frozen=True, slots=True)
class HeldGap:
    """Sections, (s, y, x) uint8, and the planes between the two in the middle where they were measured.

    `truth`: (r - 1, y, x) uint8, or no planes. `measured`: what has the fine lines that planes should have.
    """

    sections: Voxels
    truth: Voxels
    measured: Voxels

    @property
    def has_truth(self) -> bool:
        """True where the planes were measured."""
        return len(self.truth) > 0


@dataclass(frozen=True, slots=True)
class Scores:
    """`psnr`, dB: of the mean of K samples. Of one sample: `texture_rows`, `texture_columns`, energy in the
    upper half of the spectrum over the truth's; `lines`, that of planes as `run` draws them over sections'.
    """

    psnr: float
    texture_rows: float
    texture_columns: float
    lines: float

    def total(self, line_weight: float) -> float:
        """What the best is chosen by, in dB: the PSNR, less `line_weight` for each dB of lines or blur."""
        return self.psnr - line_weight * abs(10 * math.log10(max(self.lines, 1e-6)))

    def as_dict(self) -> dict[str, float]:
        """By name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Validation:
    """Gaps that were held back. `ratio`: of those without truth; `axes`: along which lines count."""

    gaps: Sequence[HeldGap]
    ratio: int
    n_samples: int
    axes: tuple[int, ...]
    device: torch.device

    def scores(self, model: Model) -> tuple[Scores, dict[str, Voxels]]:
        """The scores of a model, and pictures of one gap by title."""
        seen = [gap for gap in self.gaps if gap.has_truth]
        samples = [self.drawn(model, gap, i) for i, gap in enumerate(self.gaps)]
        of_seen = samples[: len(seen)]
        means = [to_grey(np.mean(s, axis=0)) for s in of_seen]
        ones = [to_grey(s[0]) for s in of_seen]
        truths = [gap.truth for gap in seen]
        used = [i for i, gap in enumerate(self.gaps) if not gap.has_truth] or range(len(self.gaps))
        planes = [plane for i in used for plane in to_grey(samples[i][0])]
        sections = [section for i in used for section in self.gaps[i].measured]
        lines = [texture_score(planes, sections, axis) for axis in self.axes]
        mean_lines = math.exp(float(np.mean(np.log(np.maximum(lines, 1e-6)))))
        rows, columns = (_texture(ones, truths, axis) for axis in (0, 1))
        scores = Scores(_psnr(means, truths), rows, columns, mean_lines)
        middle = len(truths[0]) // 2
        below = seen[0].sections[len(seen[0].sections) // 2 - 1]
        titles = {"below": below, "one sample": ones[0][middle], "mean": means[0][middle]}
        return scores, {**titles, "truth": truths[0][middle]}

    def drawn(self, model: Model, gap: HeldGap, index: int) -> NDArray[np.float32]:
        """Samples of a gap: (k, r - 1, y, x) grey levels. The noise is the gap's own."""
        ratio = len(gap.truth) + 1 if gap.has_truth else self.ratio
        numbers = index * 4096 + torch.arange(1, ratio, device=self.device)
        view = GapView(
            torch.from_numpy(gap.sections[None].astype(np.float32)).to(self.device),
            torch.arange(1, ratio, dtype=torch.float64, device=self.device) / ratio,
            ratio,
        )
        y, x = (gap.truth if gap.has_truth else gap.sections).shape[1:]

        def sample(k: int) -> NDArray[np.float32]:
            def noise(step: int) -> torch.Tensor:
                return voxel_noise(SEED, k, numbers, (0, 0), (y, x), step=step)[None]

            planes: NDArray[np.float32] = model.generate(view, noise).cpu().numpy()
            return planes

        return np.concatenate([sample(k) for k in range(self.n_samples)])


def held_gaps(source: Source, region: Box, cut: CropSpec, ratio: int, reach: int, n: int) -> list[HeldGap]:
    """`n` gaps of `cut` of a region with their truth, always the same; `reach`: gaps more on either side.

    Raises ConfigError where none fits.
    """
    z, y, x = (b - a - m + 1 for a, b, m in zip(region.start, region.stop, cut.extent, strict=True))
    if min(z, y, x) < 1:
        raise ConfigError(
            f"what is held back for validation, {_shape(region.shape)} voxels, leaves nothing to draw: a gap "
            f"of {_shape(cut.extent)} must fit; hold back more, or give a smaller validation.crop_px"
        )
    rng = generator(SEED, cut.number, 0, 0)
    gaps = []
    for _ in range(n):
        dz, dy, dx = (int(rng.integers(room)) for room in (z, y, x))
        box = Box.of_shape(cut.extent, region.start).shift((dz, dy, dx))
        planes = _planes(source, box, cut)
        truth = planes[reach * ratio + 1 : (reach + 1) * ratio]
        gaps.append(HeldGap(planes[::ratio], truth, planes[::ratio]))
    return gaps


def gaps_in_use(source: Source, region: Box, shape: Zyx, n: int) -> list[HeldGap]:
    """`n` gaps between sections of a region, `shape` zyx: what `run` fills. None where none fits."""
    z, y, x = (b - a - m + 1 for a, b, m in zip(region.start, region.stop, shape, strict=True))
    if min(z, y, x) < 1:
        return []
    rng = generator(SEED, 0, 1, 0)
    starts = [tuple(int(rng.integers(room)) for room in (z, y, x)) for _ in range(n)]
    boxes = (Box.of_shape(shape, region.start).shift((dz, dy, dx)) for dz, dy, dx in starts)
    return [HeldGap(sections, sections[:0], sections) for sections in map(source.read, boxes)]


def _planes(source: Source, box: Box, cut: CropSpec) -> Voxels:
    grey = cut.oriented(source.read(box)).astype(np.float32)
    return to_grey(np.ascontiguousarray(cut.as_seen(resampled(grey, cut))))


def _texture(images: Sequence[Voxels], truths: Sequence[Voxels], axis: int) -> float:
    return texture_score([p for i in images for p in i], [p for t in truths for p in t], axis)


def _psnr(images: Sequence[Voxels], truths: Sequence[Voxels]) -> float:
    squares = [np.square(a.astype(np.float64) - b).mean() for a, b in zip(images, truths, strict=True)]
    return 10 * math.log10(255**2 / max(float(np.mean(squares)), 1e-9))


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
