"""The programs that measure still run: they reach into the pipeline, which changes under them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "n_rows"),
    [
        ("overhead.py blocks parts journal --blocks 40 --repeats 1", 4),
        ("copying.py --sections 3 --repeats 1", 2),
        ("scaling.py --workers 1 --blocks 2", 1),
        ("rendering.py --side 64 --sections 2", 2),
    ],
)
def test_a_benchmark_prints_its_table(program: str, n_rows: int) -> None:
    name, *arguments = program.split()
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + n_rows, done.stdout
