"""vemdiffuse compare: models benchmarked against ground truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from vemdiffuse_pipe.cli.options import json_option, print_json
from vemdiffuse_pipe.comparison.compare import ComparedTable, Theory, compare
from vemdiffuse_pipe.comparison.file import load_comparison
from vemdiffuse_pipe.comparison.rows import Figures
from vemdiffuse_pipe.evaluation.degradation import Degradation
from vemdiffuse_pipe.evaluation.table import COLUMNS, aligned, report_cells

Layout = Callable[[Sequence[Sequence[str]]], str]
COSTS = ("FLOP/voxel", "voxels/s", "MB")


@click.command("compare")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--ratio", "ratios", type=click.IntRange(2), multiple=True, metavar="R", help="Only this one.")
@click.option(
    "--degradation",
    "degradations",
    type=click.Choice(["dropped", "averaged", "thick"]),
    multiple=True,
    help="Only this way of making sections.",
)
@click.option("--markdown", is_flag=True, help="Print the tables as Markdown.")
@json_option
def command(
    file: Path,
    ratios: tuple[int, ...],
    degradations: tuple[Degradation, ...],
    markdown: bool,
    as_json: bool,
) -> None:
    """Benchmark models against ground truth.

    FILE states the ground truth, the ratios and the models. A table is one ratio and one way of making
    sections: planes dropped, averaged, or averaged and compared with planes as thick. Only generated planes
    count. Each row is stored when it is done; rerun to resume.

    \b
    Examples:
      vemdiffuse compare compare_fib25.toml --ratio 5 --degradation dropped
      vemdiffuse compare compare_fib25.toml --ratio 5 --degradation dropped --markdown
    """
    tables = compare(
        load_comparison(file),
        ratios=ratios or None,
        degradations=degradations or None,
        on_row=lambda row: click.echo(row, err=True),
    )
    if as_json:
        print_json({"tables": [_as_dict(table) for table in tables]})
        return
    for i, table in enumerate(tables):
        click.echo(("\n" if i else "") + _shown(table, _markdown if markdown else aligned))


def _as_dict(table: ComparedTable) -> dict[str, object]:
    return {
        "degradation": table.degradation,
        "ratio": table.ratio,
        "rows": {row: figures.as_dict() for row, figures in table.rows.items()},
        "theory": [asdict(theory) for theory in table.theories],
    }


def _shown(table: ComparedTable, layout: Layout) -> str:
    heading = f"sections {table.degradation}, r = {table.ratio}; generated planes only"
    rows = [("", *COLUMNS, *COSTS), *((row, *_cells(f)) for row, f in table.rows.items())]
    theories = [_theory_text(theory) for theory in table.theories]
    return "\n".join([heading, "", layout(rows), *([""] if theories else []), *theories])


def _cells(figures: Figures) -> tuple[str, ...]:
    if not figures.peak_bytes:
        return (*report_cells(figures.report), *("-" for _ in COSTS))
    costs = (
        f"{figures.flop_per_voxel:.2g}",
        f"{figures.voxels_per_s:,.0f}",
        f"{figures.peak_bytes / 1e6:.0f}",
    )
    return (*report_cells(figures.report), *costs)


def _theory_text(theory: Theory) -> str:
    return (
        f"{theory.method}, K = {theory.samples}: {theory.psnr:.2f} dB; theory, its one-pass reference less "
        f"10 log10(1 + 1/{theory.samples}): {theory.expected:.2f} ({theory.psnr - theory.expected:+.2f})"
    )


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    heading, *others = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([heading, "| --- " * len(rows[0]) + "|", *others])
