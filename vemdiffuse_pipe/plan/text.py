"""A plan in a line of text: what is made of the sections."""

from __future__ import annotations

from vemdiffuse_pipe.geometry.frame import Nm
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.plan.planes import exact_ratio


def show_ratio(voxel_size_nm: Nm) -> str:
    """'dz / dxy is 10.87'."""
    return f"dz / dxy is {float(exact_ratio(voxel_size_nm)):.4g}"


def task_text(plan: Plan) -> str:
    """What is made of the sections, and how large its voxels are."""
    y, x = (float(v) for v in plan.output.voxel_size_nm[1:])
    match plan.card.task:
        case "isotropic":
            return _ratio_text(plan)
        case "denoise":
            return "denoise: each section by itself; none passes through"
        case "superres":
            return f"superres: each section by itself, pixels of {y:.4g} x {x:.4g} nm, half as large"


def _ratio_text(plan: Plan) -> str:
    """What r is, what anisotropy remains, and on an exact grid how many sections are kept."""
    r, is_isotropic = plan.gaps.r, abs(plan.anisotropy - 1) < 1e-6
    z, y, x = (float(v) for v in plan.output.voxel_size_nm)
    pixels = f"{y:.4g}" if y == x else f"{y:.4g} x {x:.4g}"
    return (
        f"{show_ratio(plan.source.frame.voxel_size_nm)}{'' if is_isotropic else f', taken as {r}'}: "
        f"planes every {z:.4g} nm, pixels {pixels} nm, "
        f"{'isotropic' if is_isotropic else f'anisotropy {plan.anisotropy:.3f}'}"
        f"{_kept_text(plan) if r.denominator > 1 else ''}"
    )


def _kept_text(plan: Plan) -> str:
    n_kept = sum(1 for _ in plan.gaps.measured(0, plan.gaps.n_planes))
    return f"; sections kept: {n_kept} of {plan.gaps.n_sections}"
