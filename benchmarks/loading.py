"""Does the loader keep up, and in how much memory? A volume in an S3 server on loopback, a "GPU" that sleeps.

    python benchmarks/loading.py [--batches 600] [--ms 50]

The volume, 11 GB of 64 x 128 x 128 chunks in shards, is ten times larger than the memory that the process may
hold (RLIMIT_DATA, 1 GB). A batch is 16 gaps of 6 x 64 x 64 voxels. Server and volume are those of the tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests/training"))
from figures import commit, device
from large_volume import large_volume
from servers import s3

LIMIT = 10**9


@click.command()
@click.option("--batches", default=600, show_default=True)
@click.option("--ms", default=50, show_default=True, help="That the network takes for a batch.")
def main(batches: int, ms: int) -> None:
    """Print a row of the table."""
    click.echo(f"{device()}, commit {commit()}")
    script = Path(__file__).parents[1] / "tests/training/limited_loading.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    with tempfile.TemporaryDirectory() as folder, s3() as endpoint:
        url = large_volume(endpoint, Path(folder), (8, 9, 9))
        command = [sys.executable, str(script), url, str(LIMIT), str(batches), str(ms / 1000), "0"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(done.stderr[-1000:])
    records = [json.loads(line) for line in done.stdout.splitlines()]
    early, last = records[len(records) // 6], records[-1]
    held, growth = last["held"] / 1e6, (last["held"] - early["held"]) / 1e6
    steady = (last["decoded"] - early["decoded"]) / max(1, last["used"] - early["used"])
    click.echo(f"held {held:.0f} MB, {growth:+.0f} MB since batch {early['step']}")
    click.echo(f"decoded {last['decoded'] / 1e9:.2f} GB; {steady:.2f} bytes a byte used since then")
    waited, seconds = last["waited_s"], last["seconds"]
    click.echo(f"waited {waited:.2f} s of {seconds:.1f} s: {waited / seconds:.2%}")
    click.echo(f"{last['samples_per_slab']} samples a slab")


if __name__ == "__main__":
    main()
