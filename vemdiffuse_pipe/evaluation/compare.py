"""A reconstruction beside what interpolation makes of the same sections."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.evaluation.interpolation import interpolate
from vemdiffuse_pipe.evaluation.report import Report, evaluate
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.volume import Voxels

ORDERS = {"linear": 1, "cubic": 3}

# How far from perfect a report is, by metric: less is better.
ERRORS: dict[str, Callable[[Report], float]] = {
    "PSNR": lambda r: -r.psnr,
    "SSIM": lambda r: -r.ssim,
    "FSIM along xy": lambda r: -r.fsim_xy,
    "FSIM along xz": lambda r: -r.fsim_xz,
    "GMSD": lambda r: r.gmsd_xy + r.gmsd_xz + r.gmsd_yz,
    "texture along x": lambda r: abs(r.hf_x - 1),
    "texture along z": lambda r: abs(r.hf_z - 1),
    "FSC": lambda r: -r.fsc,
    "flicker": lambda r: abs((r.flicker or 0) - 1),
}


def with_interpolation(predictions: Mapping[str, Voxels], truth: Voxels, r: int) -> dict[str, Report]:
    """Reports of linear and cubic interpolation, then of each prediction; generated planes only.

    `predictions`, `truth`: (z, y, x) uint8 of one shape. Every r-th plane of the truth, from plane 0, is a
    section; the planes between two sections are the generated ones. Raises ConfigError for other input.
    """
    n_sections = (len(truth) - 1) // r + 1
    if n_sections < 2 or len(truth) != (n_sections - 1) * r + 1:
        raise ConfigError(
            f"{len(truth)} planes at ratio {r}; a reconstruction of M sections has (M - 1) * {r} + 1 planes"
        )
    planes = [z for z in range(len(truth)) if z % r]
    sections = truth[::r]
    volumes = {name: to_grey(interpolate(sections, r, order)) for name, order in ORDERS.items()}
    return {
        name: evaluate(volume, truth, planes=planes) for name, volume in (volumes | dict(predictions)).items()
    }


def verdict(reports: Mapping[str, Report]) -> list[str]:
    """Whether each prediction beats linear and cubic interpolation: a line for each metric."""
    ours = [name for name in reports if name not in ORDERS]
    return [
        f"{metric}: " + "; ".join(f"{name} {_beaten(error, reports, name)}" for name in ours)
        for metric, error in ERRORS.items()
        if metric != "flicker" or all(report.flicker is not None for report in reports.values())
    ]


def _beaten(error: Callable[[Report], float], reports: Mapping[str, Report], name: str) -> str:
    beaten = [rival for rival in ORDERS if error(reports[name]) < error(reports[rival])]
    only = "" if len(beaten) == len(ORDERS) else " only"
    return f"beats {' and '.join(beaten)}{only}" if beaten else "beats neither linear nor cubic"
