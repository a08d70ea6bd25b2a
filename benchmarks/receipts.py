"""What receipts cost who opens a run, on a disk and in a bucket; and the memory of going through a run.

    python benchmarks/receipts.py [disk] [bucket] [memory]

disk        opening a run that has 1e5 and 1e6 receipts: seconds, and peak memory of the process; and what
            `status` sums over them: CPU-seconds
bucket      1e6 receipts in a bucket, on moto on loopback (needs the packages of the tests)
memory      peak memory of a process that goes through the missing work of 1e4, 1e5 and 1e6 blocks
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
from figures import Row, grid, print_table, record

from vemdiffuse_pipe.monitor.tally import Tally
from vemdiffuse_pipe.records import receipts
from vemdiffuse_pipe.records.segments import LINES_OF_AN_OBJECT, encode
from vemdiffuse_pipe.storage import parse_address

KINDS = ["disk", "bucket", "memory"]


@click.command()
@click.argument("kinds", nargs=-1, type=click.Choice(KINDS))
def main(kinds: tuple[str, ...]) -> None:
    """Print the table."""
    chosen = kinds or KINDS
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        if "disk" in chosen:
            rows += [row for n in (100_000, 1_000_000) for row in receipt_rows(Path(folder), n)]
        if "bucket" in chosen:
            rows.append(bucket_row(1_000_000))
        if "memory" in chosen:
            rows += memory_rows()
    print_table(rows)


def receipt_rows(folder: Path, n_receipts: int) -> Iterator[Row]:
    """A process that opens the run, and one that opens an empty one."""
    output = folder / f"receipts{n_receipts}"
    write_receipts(output, n_receipts)
    (took, peak), (_, empty) = (opening(where, n_receipts) for where in (output, folder / "no receipts"))
    yield (
        f"{n_receipts:.0e} receipts (4 shards, 2 arrays), opened",
        f"{took:.2f} s, peak {peak / 1e6:.0f} MB",
        f"{disk_bytes(output) / 1e6:.0f} MB on disk; without receipts {empty / 1e6:.0f} MB",
    )
    began = time.process_time()
    tally = Tally(time.time())
    for segment, cost in receipts.CostReader(parse_address(output), "0" * 16).new_costs():
        tally.add(segment, cost)
    assert tally.n_receipts == n_receipts
    yield (
        f"{n_receipts:.0e} receipts, summed for status",
        f"{time.process_time() - began:.1f} CPU-seconds",
        "",
    )


def bucket_row(n_receipts: int) -> Row:
    """A process that opens a run whose receipts are in a bucket."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from servers import BUCKET, client, s3

    blocks, shards = grid(n_receipts)
    os.environ.update(AWS_ACCESS_KEY_ID="none", AWS_SECRET_ACCESS_KEY="none")
    with s3() as endpoint:
        for first in range(0, n_receipts, LINES_OF_AN_OBJECT):
            indices = range(first, min(n_receipts, first + LINES_OF_AN_OBJECT))
            lines = [encode(record(i, tuple(shards.touching(blocks.box(i))))) for i in indices]
            key = f"run/.vemdiffuse/{receipts.FOLDER}/node-{first}.jsonl"
            client(endpoint).put_object(Bucket=BUCKET, Key=key, Body=b"".join(lines))
        took, peak = opening(f"s3+{endpoint}/{BUCKET}/run", n_receipts)
    return (
        f"{n_receipts:.0e} receipts in a bucket, opened",
        f"{took:.2f} s, peak {peak / 1e6:.0f} MB",
        f"{-(-n_receipts // LINES_OF_AN_OBJECT)} objects of {LINES_OF_AN_OBJECT} lines, moto on loopback",
    )


def memory_rows() -> Iterator[Row]:
    """Peak memory while all missing work is gone through, nothing of it done."""
    for side in (100, 316, 1000):
        program = MEMORY.format(shape=(64 * 100, 1024 * side // 10, 1024 * side // 10))
        peak, n = run_python(program)
        yield (f"{n:.0f} missing blocks gone through, in columns", f"peak {peak / 1e6:.0f} MB", "")


MEMORY = """
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.records.parts import Part
from vemdiffuse_pipe.records.shards import ShardSet, missing_work
from vemdiffuse_pipe.running.stages import peak_bytes
blocks, shards = BlockGrid({shape}, (64, 1024, 1024)), BlockGrid({shape}, (64, 512, 512))
work = missing_work(blocks, ShardSet(shards), columns=True, share=Part(1, 1).own)
n = sum(1 for _ in work)
print(peak_bytes(), n)
"""


def write_receipts(output: Path, n_receipts: int) -> None:
    """The receipts of a complete run, as 16 processes would leave them."""
    target = output / ".vemdiffuse" / receipts.FOLDER
    target.mkdir(parents=True)
    blocks, shards = grid(n_receipts)
    for part in range(16):
        with (target / f"{part}.jsonl").open("wb") as file:
            for i in range(part, n_receipts, 16):
                file.write(encode(record(i, tuple(shards.touching(blocks.box(i))))))


OPENING = """
import sys, time
sys.path.insert(0, sys.argv[1])
from figures import grid
from vemdiffuse_pipe.records.folder import records_of
from vemdiffuse_pipe.running.progress import Progress
from vemdiffuse_pipe.running.stages import peak_bytes
from vemdiffuse_pipe.storage import parse_address
started = time.perf_counter()
progress = Progress(records_of(parse_address(sys.argv[2])), "0" * 16, *grid(int(sys.argv[3])))
n_missing = progress.n_missing()
took = time.perf_counter() - started
print(took, peak_bytes())
"""


def opening(output: Path | str, n_receipts: int) -> tuple[float, float]:
    """Seconds to open a run and count what is missing, and the peak memory of the process."""
    return run_python(OPENING, str(Path(__file__).parent), str(output), str(n_receipts))


def run_python(program: str, *arguments: str) -> tuple[float, float]:
    """The two numbers that a program prints, in a process of its own."""
    command = [sys.executable, "-c", program, *arguments]
    first, last = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(first), float(last)


def disk_bytes(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
