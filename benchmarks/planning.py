"""How long planning a petavoxel takes, and the memory it needs.

    python benchmarks/planning.py

Prints a row of a table: output voxels, blocks, seconds from metadata to plan and estimate, peak memory.
"""

from __future__ import annotations

import resource
import sys
import time

from vemdiffuse_pipe.config import parse
from vemdiffuse_pipe.geometry.frame import Frame, exact_nm
from vemdiffuse_pipe.models.card import find_card
from vemdiffuse_pipe.plan.estimate import estimate
from vemdiffuse_pipe.plan.plan import make_plan
from vemdiffuse_pipe.volume import VolumeSpec


def main() -> None:
    """Plan a cubic millimetre of cortex: 27,000 sections of 110,000 x 110,000 px at 40 x 8 x 8 nm."""
    started = time.perf_counter()
    run_file = parse({"source": {"url": "-"}, "output": {"url": "-"}})
    frame = Frame((27_000, 110_000, 110_000), exact_nm([40, 8, 8]))
    spec = VolumeSpec("-", "precomputed", frame, "uint8", (64, 64, 64), (64, 64, 64))
    plan = make_plan(run_file, spec, find_card("default"))
    figures = estimate(plan, n_threads=2)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_mb = peak / (2**20 if sys.platform == "darwin" else 1e3)
    print("| output voxels | blocks | FLOP a voxel | planned in | peak memory |")
    print("| --- | --- | --- | --- | --- |")
    print(
        f"| {figures.output_voxels:.3g} | {figures.n_blocks:,} | {figures.flop_per_voxel:.3g} "
        f"| {seconds:.3f} s | {peak_mb:.0f} MB |"
    )


if __name__ == "__main__":
    main()
