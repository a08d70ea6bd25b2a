"""How well neighbouring sections lie on each other: measured, never corrected.

    section u + 1   . . . [tile] . . . [tile] . . .     the shift of each tile, by cross-correlation,
    section u       . . . [tile] . . . [tile] . . .     then the median over the tiles

Guizar-Sicairos, Thurman & Fienup, Opt. Lett. 33:156, 2008. Tissue moves from section to section as well, in
another direction at every place: single tiles say little, and their median says where the section lies. A
shift by more than the distance of two sections tilts all tissue by more than 45 degrees: that is a jump, and
no model can tell it from tissue.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise, product

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from skimage.registration import phase_cross_correlation

from vemdiffuse_pipe.errors import CorruptDataError, MissingDataError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage.retry import RetryPolicy, with_retries
from vemdiffuse_pipe.volume import Source, Voxels

TILE_PX = 256
TILES = 3  # along y, and along x
MAX_PAIRS = 256  # of neighbouring sections that are looked at; of a deeper stack evenly spread runs
MIN_DEVIATION = 2.0  # grey levels: a tile that varies less is no tissue
FINEST_PX, COARSEST_PX = 6.0, 64.0  # periods that are compared: noise is finer, shading is coarser
MIN_JUMP_PX = 4.0
MAX_BAD_SHARE = 0.25  # of the pairs
UPSAMPLING = 20

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PairShift:
    """How far section `lower` + 1 lies off section `lower`: px, (y, x); None where tiles do not agree.

    `spread_px`: median distance of the tiles' shifts from their median. `n_tiles`: tiles with tissue.
    """

    lower: int
    shift_px: tuple[float, float] | None
    spread_px: float
    n_tiles: int

    @property
    def length_px(self) -> float:
        """Length of the shift; 0 where it is not known."""
        return float(np.hypot(*self.shift_px)) if self.shift_px else 0.0


@dataclass(frozen=True, slots=True)
class Alignment:
    """The pairs that were looked at, ascending, of `n_pairs` in the stack.

    `jump_px`: the longest shift that is no jump.
    """

    pairs: tuple[PairShift, ...]
    n_pairs: int
    jump_px: float

    @property
    def jumps(self) -> tuple[PairShift, ...]:
        """Pairs with a shift of more than `jump_px`."""
        return tuple(pair for pair in self.pairs if pair.length_px > self.jump_px)

    @property
    def unclear(self) -> tuple[PairShift, ...]:
        """Pairs whose tiles show tissue and do not agree on a shift."""
        return tuple(pair for pair in self.pairs if pair.shift_px is None and pair.n_tiles)

    @property
    def typical_px(self) -> float:
        """Median length of the shifts; 0 where none is known."""
        lengths = [pair.length_px for pair in self.pairs if pair.shift_px is not None]
        return float(np.median(lengths)) if lengths else 0.0

    @property
    def is_good_enough(self) -> bool:
        """False with too many jumps or unclear pairs, or long shifts throughout: fill no gaps then."""
        n_bad = len(self.jumps) + len(self.unclear)
        return n_bad <= MAX_BAD_SHARE * len(self.pairs) and self.typical_px <= self.jump_px / 2

    @property
    def verdict(self) -> str:
        """One sentence: whether gaps can be filled, and what to do where not."""
        if not self.is_good_enough:
            return "too badly aligned to fill gaps: align the stack first"
        if self.jumps:
            return "good enough to fill gaps, but not at the jumps: align the stack there"
        return "good enough to fill gaps"

    def as_dict(self) -> dict[str, object]:
        """For JSON: all pairs, and what follows from them."""
        return {
            "pairs": [asdict(pair) for pair in self.pairs],
            "n_pairs": self.n_pairs,
            "jump_px": self.jump_px,
            "typical_px": self.typical_px,
            "jumps": [pair.lower for pair in self.jumps],
            "unclear": [pair.lower for pair in self.unclear],
            "is_good_enough": self.is_good_enough,
            "verdict": self.verdict,
        }


def measure_alignment(source: Source) -> Alignment:
    """The shift of each section against the one before, at up to 9 tiles of 256 px of up to 256 pairs.

    A tile that cannot be read or shows no tissue is passed over. Lengths are px of `source`. Raises
    AccessError or TransientError.
    """
    z, y, x = source.spec.frame.voxel_size_nm
    jump_px = max(MIN_JUMP_PX, float(z / min(y, x)))
    pairs = [pair for run in _runs(source) for pair in _shifts_of_run(source, run, jump_px)]
    return Alignment(tuple(pairs), source.spec.shape[0] - 1, jump_px)


def _runs(source: Source) -> Iterator[range]:
    """Lower sections of the pairs that are looked at, in runs that lie in as few chunks as can be."""
    n_pairs, depth = source.spec.shape[0] - 1, max(1, min(source.spec.chunk_shape[0] - 1, MAX_PAIRS))
    if n_pairs <= MAX_PAIRS:
        yield from (range(first, min(first + depth, n_pairs)) for first in range(0, n_pairs, depth))
        return
    n_layers, n_runs = n_pairs // (depth + 1), MAX_PAIRS // depth
    for i in range(n_runs):
        first = (2 * i + 1) * n_layers // (2 * n_runs) * (depth + 1)
        yield range(first, first + depth)


def _shifts_of_run(source: Source, run: range, jump_px: float) -> Iterator[PairShift]:
    shifts = np.stack([_shifts_of_tile(source, run, tile) for tile in _tiles(source)])
    for i, lower in enumerate(run):
        yield _agreed(lower, shifts[:, i], jump_px)


def _agreed(lower: int, shifts: Floats, jump_px: float) -> PairShift:
    """The median of the tiles' shifts, (tile, 2), where most of them lie near it."""
    known = shifts[np.isfinite(shifts).all(axis=1)]
    if not len(known):
        return PairShift(lower, None, 0.0, 0)
    median = np.median(known, axis=0)
    distances = np.hypot(*(known - median).T)
    agrees = np.count_nonzero(distances <= jump_px) * 2 > len(known)
    found = (round(float(median[0]), 2), round(float(median[1]), 2))
    return PairShift(lower, found if agrees else None, round(float(np.median(distances)), 2), len(known))


def _tiles(source: Source) -> list[Box]:
    """Tiles of a section, spread evenly: the middles of equal parts."""
    return [
        Box((0, y.start, x.start), (1, y.stop, x.stop))
        for y, x in product(*map(_spread, source.spec.shape[1:]))
    ]


def _spread(n: int) -> list[slice]:
    size = min(n, TILE_PX)
    count = min(TILES, -(-n // size))
    return [slice(s, s + size) for s in ((2 * i + 1) * (n - size) // (2 * count) for i in range(count))]


def _shifts_of_tile(source: Source, run: range, tile: Box) -> Floats:
    """Shift of each section of a run against the one before: (pairs, 2), NaN where it cannot be measured."""
    box = Box((run.start, *tile.start[1:]), (run.stop + 1, *tile.stop[1:]))
    try:
        sections = with_retries(lambda: source.read(box), RetryPolicy(), lambda reason: None)
    except (MissingDataError, CorruptDataError):
        return np.full((len(run), 2), np.nan)
    return np.array([section_shift(lower, upper) for lower, upper in pairwise(sections)])


def section_shift(lower: Voxels, upper: Voxels) -> tuple[float, float]:
    """How far `upper` lies off `lower`: px, (y, x), to a twentieth of a pixel; NaN where either is flat.

    To whole pixels first, then on what both show. A shift of more than half a side cannot be seen.
    """
    if min(lower.std(), upper.std()) < MIN_DEVIATION:
        return float("nan"), float("nan")
    whole = np.round(_shift(lower, upper, 1)).astype(int)
    if any(2 * abs(s) > n for s, n in zip(whole, lower.shape, strict=True)):
        return float("nan"), float("nan")
    below, above = (lower[_overlap(whole, lower.shape)], upper[_overlap(-whole, lower.shape)])
    y, x = whole + _shift(below, above, UPSAMPLING)
    return float(-y), float(-x)


def _overlap(shift: NDArray[np.int64], shape: Sequence[int]) -> tuple[slice, ...]:
    """What of an image another one shows too that is to be moved by `shift` to lie on it."""
    return tuple(slice(max(0, s), n + min(0, s)) for s, n in zip(shift, shape, strict=True))


def _shift(fixed: Voxels, moving: Voxels, upsampling: int) -> Floats:
    """By how much `moving` must be moved to lie on `fixed`: (2,) px."""
    shift, _, _ = phase_cross_correlation(
        _spectrum(fixed), _spectrum(moving), upsample_factor=upsampling, space="fourier", normalization=None
    )
    found: Floats = np.asarray(shift, np.float64)
    return found


def _spectrum(image: Voxels) -> NDArray[np.complex64]:
    """The spectrum of an image between the periods that are compared, its edges faded out."""
    hann_y, hann_x = (np.hanning(n + 2)[1:-1].astype(np.float32) for n in image.shape)
    centred = (image - image.mean(dtype=np.float32)) * hann_y[:, None] * hann_x
    fy, fx = (scipy.fft.fftfreq(n) for n in image.shape)
    squared = fy[:, None] ** 2 + fx**2
    band = np.exp(-squared * FINEST_PX**2) - np.exp(-squared * COARSEST_PX**2)
    spectrum: NDArray[np.complex64] = scipy.fft.fft2(centred) * band.astype(np.float32)
    return spectrum
