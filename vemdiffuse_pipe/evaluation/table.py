"""Reports as a table for people."""

from __future__ import annotations

from collections.abc import Mapping

from vemdiffuse_pipe.evaluation.report import Report

COLUMNS = ("PSNR", "SSIM", "FSIM-xy", "FSIM-xz", "FSIM-yz", "GMSD", "HF-x", "HF-y", "HF-z")


def render_table(rows: Mapping[str, Report]) -> str:
    """A plain-text table, one line a report under one line of headings; no line ends in a space.

    GMSD is the mean over xy, xz and yz views; the other columns are fields of the report.
    """
    cells = [("", *COLUMNS), *((name, *_cells(report)) for name, report in rows.items())]
    widths = [max(len(row[i]) for row in cells) for i in range(len(COLUMNS) + 1)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    )


def _cells(report: Report) -> tuple[str, ...]:
    return (
        f"{report.psnr:.2f}",
        f"{report.ssim:.3f}",
        f"{report.fsim_xy:.4f}",
        f"{report.fsim_xz:.4f}",
        f"{report.fsim_yz:.4f}",
        f"{(report.gmsd_xy + report.gmsd_xz + report.gmsd_yz) / 3:.3f}",
        f"{report.hf_x:.2f}",
        f"{report.hf_y:.2f}",
        f"{report.hf_z:.2f}",
    )
