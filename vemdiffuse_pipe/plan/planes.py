"""Where planes lie: which ratio a volume, a run file and a model agree on.

grid = "whole"    r = round(dz / dxy)    planes nearly as far apart as pixels; all sections are kept
grid = "exact"    r = dz / dxy           planes as far apart as pixels; sections are kept where one falls on
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

from vemdiffuse_pipe.config import RunFile
from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.geometry.frame import Frame, Nm, show_nm
from vemdiffuse_pipe.geometry.gaps import Gaps
from vemdiffuse_pipe.geometry.plane_groups import PlaneGroups, Ratio
from vemdiffuse_pipe.geometry.restored import Singles
from vemdiffuse_pipe.models.card import ModelCard
from vemdiffuse_pipe.plan.measured import Measured
from vemdiffuse_pipe.volume import VolumeSpec

MAX_RATIO = 1024
MAX_PLANES = 10**7
MAX_SIDE = 10**7
NARROWEST = Fraction(3, 2)  # gap, in planes: below it a volume counts as isotropic
NOISE = Fraction(1, 10**6)  # of a ratio: what lengths in float32 are off by, and more
DRIFT = Fraction(1, 10)  # of a plane, over the whole volume: what a simpler ratio may cost


def choose_planes(
    run_file: RunFile, source: VolumeSpec, card: ModelCard, measured: Measured | None = None
) -> tuple[PlaneGroups, Frame]:
    """Which planes are made from which sections, and where the planes lie. Raises PlanError."""
    lost = measured.rejected_sections if measured else ()
    rejected = tuple(sorted({*run_file.source.rejected_sections, *lost}))
    ratio, grid = run_file.model.ratio, run_file.model.grid
    if card.fills_gaps:
        if grid == "exact" and ratio is not None:
            raise PlanError(
                f"ratio {ratio} and an exact grid, whose ratio is dz / dxy; leave one of them out"
            )
        r = exact_grid(source.frame) if grid == "exact" else choose_ratio(source.frame, ratio)
        gaps = Gaps(source.shape[0], r, rejected, run_file.model.sections == "keep")
        _check_model(card, gaps)
        _check_extent(source, gaps)
        return gaps, source.frame.refined_z(gaps.r)
    if ratio is not None or grid == "exact":
        option, key = ("an exact grid", "grid") if ratio is None else (f"ratio {ratio}", "ratio")
        raise PlanError(f"{option}; task {card.task} makes no planes between sections: leave {key} out")
    singles = Singles(source.shape[0], rejected)
    _check_extent(source, singles)
    return singles, source.frame.refined_yx(card.scale)


def choose_ratio(frame: Frame, ratio: int | None) -> int:
    """r: what was asked for, or the nearest whole number to dz / dxy.

    Raises PlanError for a tie, naming both choices, and for a volume that is isotropic already.
    """
    exact = exact_grid(frame) if ratio is None else 0
    if ratio is None and exact > 2 and exact % 1 == Fraction(1, 2):
        low = int(exact)
        raise PlanError(
            f"dz / dxy is {float(exact):.6g}, as near to {low} as to {low + 1}; choose one: "
            f"--ratio {low} or --ratio {low + 1}, or planes as far apart as pixels: --grid exact"
        )
    chosen = round(exact) if ratio is None else ratio
    if chosen < 2:
        raise PlanError(f"ratio {chosen}; at least 2 is needed: there is nothing to generate")
    return chosen


def exact_grid(frame: Frame) -> Ratio:
    """r of planes that are as far apart as pixels: dz / dxy, an int where that is whole.

    Voxel sizes are often rounded to float32: the simplest fraction that they may stand for is taken, so that
    sections are kept. Raises PlanError for a volume that is isotropic already.
    """
    exact = exact_ratio(frame.voxel_size_nm)
    if exact < NARROWEST:
        raise PlanError(
            f"voxels of {show_nm(frame.voxel_size_nm)} nm: dz / dxy is {float(exact):.4g}, at least 1.5 "
            "is needed; the volume is isotropic already, or its voxel size is not given in the order z y x"
        )
    tolerance = min(exact * NOISE, DRIFT / frame.shape[0])
    r = _simplest(exact - tolerance, exact + tolerance)
    return int(r) if r.denominator == 1 else r


def exact_ratio(voxel_size_nm: Nm) -> Fraction:
    """dz / dxy, the side of a pixel being the mean of y and x."""
    z, y, x = voxel_size_nm
    return 2 * z / (y + x)


def _simplest(low: Fraction, high: Fraction) -> Fraction:
    """The fraction of the smallest denominator in [low, high], of positive numbers."""
    whole = floor(low)
    if whole == low or whole + 1 <= high:
        return Fraction(ceil(low))
    return whole + 1 / _simplest(1 / (high - whole), 1 / (low - whole))


def _check_extent(source: VolumeSpec, groups: PlaneGroups) -> None:
    """Raises PlanError for what no microscope made: a size that is mistyped, or metadata that lies."""
    if groups.r > MAX_RATIO:
        raise PlanError(
            f"ratio {float(groups.r):.6g}; at most {MAX_RATIO} is possible: is the voxel size "
            f"{show_nm(source.frame.voxel_size_nm)} nm right, in the order z y x?"
        )
    if groups.n_planes > MAX_PLANES or max(source.shape[1:]) > MAX_SIDE:
        raise PlanError(
            f"{source.url} would give {groups.n_planes} planes of {source.shape[1]} x {source.shape[2]} px; "
            f"at most {MAX_PLANES} planes of {MAX_SIDE} px a side can be planned: is its metadata right?"
        )


def _check_model(card: ModelCard, gaps: Gaps) -> None:
    if card.reach_sections and gaps.rejected and not card.needs_sectioning:
        raise PlanError(
            f"model {card.name} cannot bridge rejected sections; choose linear or a diffusion model"
        )
    if gaps.r.denominator > 1 and card.network_sizes.ratio:
        raise PlanError(
            f"model {card.name} knows its planes by their numbers and cannot make them where an exact grid "
            f'needs them, {float(gaps.r):.6g} a section; choose another model, or grid = "whole"'
        )
    narrowest = NARROWEST if card.min_ratio == 2 else card.min_ratio  # 2 is the narrowest whole one
    if gaps.r < narrowest or gaps.max_ratio > card.max_ratio:
        widest = f" to {float(gaps.max_ratio):.6g}" if gaps.max_ratio > gaps.r else ""
        other = 'grid = "whole"' if gaps.r.denominator > 1 else "--ratio"
        raise PlanError(
            f"model {card.name} fills gaps of ratio {card.min_ratio} to {card.max_ratio}; this volume "
            f"needs {float(gaps.r):.6g}{widest}; choose another model or {other}"
        )
