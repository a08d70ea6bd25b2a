"""Reports as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vemdiffuse_pipe.evaluation.report import Report

COLUMNS = (
    *("PSNR", "SSIM", "FSIM-xy", "FSIM-xz", "FSIM-yz", "GMSD", "HF-x", "HF-y", "HF-z"),
    *("FSC", "cutoff-xy", "cutoff-xz", "flicker", "lines-y", "lines-x"),
)


def render_table(rows: Mapping[str, Report]) -> str:
    """A plain-text table, one line a report under one line of headings; no line ends in a space.

    GMSD is the mean over xy, xz and yz views; the other columns are fields of the report, and - stands for
    what does not exist.
    """
    return aligned([("", *COLUMNS), *((name, *report_cells(report)) for name, report in rows.items())])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of as many cells each: the first column from the left, the others from the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def report_cells(report: Report) -> tuple[str, ...]:
    """One cell for each of `COLUMNS`."""
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
        *(_or_dash(v) for v in (report.fsc, report.cutoff_xy, report.cutoff_xz)),
        *(_or_dash(v) for v in (report.flicker, report.lines_y, report.lines_x)),
    )


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
