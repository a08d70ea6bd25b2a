"""How every command writes numbers."""

from __future__ import annotations

from vemdiffuse_pipe.geometry.box import Zyx
from vemdiffuse_pipe.geometry.frame import Nm
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.plan.planes import exact_ratio


def show_bytes(n: float) -> str:
    """'316 MB', in decimal units, three digits."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if n < 999.5:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.4g} EB"


def show_count(n: float) -> str:
    """'12,345' up to a million, '1.23e+07' beyond."""
    return f"{n:,.0f}" if n < 1e6 else f"{n:.3g}"


def show_shape(shape: Zyx) -> str:
    """'20 x 1024 x 736', zyx."""
    return " x ".join(map(str, shape))


def show_duration(seconds: float) -> str:
    """'12 s', '3 min', '2.1 h', '46 days', '5.2 years'."""
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.2g} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"
    days = seconds / 86400
    return f"{days:.0f} days" if days < 730 else f"{days / 365.25:.3g} years"


def printable(text: str) -> str:
    """The text without what a terminal would obey: it may come from elsewhere."""
    return "".join(c if c.isprintable() else " " for c in text)


def show_ratio(voxel_size_nm: Nm) -> str:
    """'dz / dxy is 10.87'."""
    return f"dz / dxy is {float(exact_ratio(voxel_size_nm)):.4g}"


def task_text(plan: Plan) -> str:
    """What is made of the sections, and how large its voxels are."""
    y, x = (float(v) for v in plan.output.voxel_size_nm[1:])
    match plan.card.task:
        case "isotropic":
            return ratio_text(plan)
        case "denoise":
            return "denoise: each section by itself; none passes through"
        case "superres":
            return f"superres: each section by itself, pixels of {y:.4g} x {x:.4g} nm, half as large"


def ratio_text(plan: Plan) -> str:
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
