"""What workers hold at most, against what the plan says they may: block shapes, with and without a network.

    python benchmarks/memory.py [linear] [default]

Each run is a process of its own. Prints rows of a table: model, block shape, the most held (resident),
the planned bound, and bound over held. 480 MB of every bound are the interpreter and its libraries.
"""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from vemdiffuse_pipe import config
from vemdiffuse_pipe.config import RunFile
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.plan.estimate import estimate
from vemdiffuse_pipe.running.reconstruct import prepare
from vemdiffuse_pipe.storage import create_sink

THREADS = 2
LINEAR_BLOCKS = ((32, 512, 512), (32, 512, 1024), (64, 512, 1024), (64, 1024, 1024), (64, 1024, 2048))
DEFAULT_BLOCKS = ((20, 128, 128), (20, 256, 256), (20, 384, 384), (40, 256, 384), (40, 384, 384))

ONE_RUN = """
import sys
from pathlib import Path
from vemdiffuse_pipe import config
from vemdiffuse_pipe.running.reconstruct import run
from vemdiffuse_pipe.running.stages import peak_bytes
code = run(config.load(Path(sys.argv[1]))).exit_code
print(peak_bytes())
sys.exit(code)
"""


def write_source(folder: Path, shape: Zyx) -> str:
    """Noise, in chunks of a section: what compresses badly, as tissue does."""
    shard = (1, *shape[1:])
    sink = create_sink(
        folder / "source.zarr",
        Frame(shape, (Fraction(50), Fraction(10), Fraction(10))),
        arrays=("em",),
        chunk_shape=shard,
        shard_shape=shard,
        attributes={},
        provenance=np.ones(shape[0], np.uint8),
    )
    chance = np.random.default_rng(0)
    for z in range(shape[0]):
        sink.write("em", Box((z, 0, 0), (z + 1, *shape[1:])), chance.integers(1, 255, shard, dtype=np.uint8))
    return str(folder / "source.zarr" / "em")


def run_file(source: str, folder: Path, model: dict[str, object], shard: Zyx, block: Zyx) -> RunFile:
    """A run of that model with those blocks."""
    chunk = (shard[0], 64, 64)
    return config.parse(
        {
            "source": {"url": source, "contrast": [128.0, 60.0], "bad_sections": "keep"},
            "output": {"url": str(folder / "out.zarr"), "chunk_shape": chunk, "shard_shape": shard},
            "model": model,
            "run": {"block_shape": block, "threads": THREADS},
        }
    )


def peak_bytes(folder: Path, table: RunFile) -> int:
    """The most that a process held which did this run."""
    (folder / "run.toml").write_text(config.dump(table))
    command = [sys.executable, "-c", ONE_RUN, str(folder / "run.toml")]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(model: dict[str, object], source_shape: Zyx, shard: Zyx, blocks: tuple[Zyx, ...]) -> None:
    """Print a row for each block shape."""
    with TemporaryDirectory() as name:
        source = write_source(Path(name), source_shape)
        for block in blocks:
            with TemporaryDirectory(dir=name) as place:
                table = run_file(source, Path(place), model, shard, block)
                bound = estimate(prepare(table)[1], n_threads=THREADS).ram_bytes
                held = peak_bytes(Path(place), table)
            shown = " x ".join(map(str, block))
            sizes = f"{held / 1e6:,.0f} MB | {bound / 1e6:,.0f} MB | {bound / held:.2f}"
            print(f"| {model['name']} | {shown} | {sizes} |", flush=True)


def main() -> None:
    """Both models, or the one that is named."""
    names = sys.argv[1:] or ["linear", "default"]
    print("| model | block | held | planned | planned / held |")
    print("| --- | --- | --- | --- | --- |")
    if "linear" in names:
        measure({"name": "linear"}, (61, 2048, 2048), (32, 512, 512), LINEAR_BLOCKS)
    if "default" in names:
        small_tiles = {"name": "default", "samples": 2, "steps": 1, "tile_px": 128}
        measure(small_tiles, (9, 384, 384), (20, 128, 128), DEFAULT_BLOCKS)


if __name__ == "__main__":
    main()
