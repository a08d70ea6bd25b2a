"""The rows of a comparison, kept in a folder as they come: one JSON object a line."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.evaluation.report import Report

FILE = "rows.jsonl"
MAY_BE_ABSENT = ("cutoff_xy", "cutoff_xz", "cutoff_yz", "flicker")


@dataclass(frozen=True, slots=True)
class Figures:
    """A row: its report, and what it cost; 0 where nothing was rendered."""

    report: Report
    flop_per_voxel: float = 0.0
    """Of the output, all samples together."""
    voxels_per_s: float = 0.0
    """Of the output, all samples together."""
    peak_bytes: int = 0
    """The most memory that the process held."""

    def as_dict(self) -> dict[str, float | None]:
        """All figures by name, for JSON."""
        costs = {f.name: getattr(self, f.name) for f in fields(self)[1:]}
        return self.report.as_dict() | costs


class RowFolder:
    """Rows by their keys, in `folder`/rows.jsonl, those of an earlier comparison included.

    A line that is torn, because the machine stopped in it, is passed over: its row is made again. Raises
    ConfigError where the folder cannot be used.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._path = Path(folder) / FILE
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            text = self._path.read_text() if self._path.exists() else ""
            with self._path.open("a") as file:
                file.write("" if not text or text.endswith("\n") else "\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{folder} cannot hold the rows of a comparison ({type(error).__name__}); "
                "name another folder as results in [compare]"
            ) from None
        self._rows = dict(row for row in map(_row, text.splitlines()) if row)

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __getitem__(self, key: str) -> Figures:
        return self._rows[key]

    def keep(self, key: str, name: str, figures: Figures) -> None:
        """Keep a row, durably, before returning. `name`: for whoever reads the file."""
        with self._path.open("a") as file:
            file.write(json.dumps({"key": key, "name": name, **figures.as_dict()}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._rows[key] = figures


def _row(line: str) -> tuple[str, Figures] | None:
    try:
        row = json.loads(line)
        costs = {f.name: row[f.name] for f in fields(Figures)[1:]}
        return str(row["key"]), Figures(_report(row), **costs)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _report(row: dict[str, float | None]) -> Report:
    """The report of a row; what JSON has no number for, and exists, is infinite."""
    names = [f.name for f in fields(Report)]
    infinite = {n: float("inf") for n in names if row[n] is None and n not in MAY_BE_ABSENT}
    return Report(**{n: row[n] for n in names} | infinite)  # type: ignore[arg-type]
