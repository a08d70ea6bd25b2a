"""How every command writes numbers."""

from __future__ import annotations

from vemdiffuse_pipe.geometry.box import Zyx
from vemdiffuse_pipe.plan.text import show_ratio as show_ratio


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
