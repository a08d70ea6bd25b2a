"""Batches in a process that may not hold more than so many bytes: JSON lines of what it held, and waited.

python limited_loading.py URL LIMIT_BYTES N_BATCHES SECONDS_PER_BATCH SAMPLES_PER_SLAB
"""

from __future__ import annotations

import json
import resource
import sys
import time
from contextlib import closing

import psutil


def main() -> None:
    url, limit, n_batches, seconds, samples = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_DATA, (int(limit), int(limit)))
    from vemdiffuse_pipe.cluster.memory import share_arenas
    from vemdiffuse_pipe.storage import open_source
    from vemdiffuse_pipe.training.gaps import GapBatches
    from vemdiffuse_pipe.training.pool import SlabPool
    from vemdiffuse_pipe.training.prefetch import Prefetched
    from vemdiffuse_pipe.training.slabs import CropSpec, SlabSchedule, TrainingVolume

    share_arenas()
    source = open_source(url, cache_bytes=32 << 20)
    volume = TrainingVolume(source, (128.0, 40.0), source.spec.frame.box)
    schedule = SlabSchedule([volume], CropSpec(0, 6, 64, 64), wanted_samples_per_slab=int(samples) or None)
    made = GapBatches(SlabPool(schedule), {5: 1.0}, 16)
    process, start = psutil.Process(), 0.0
    with closing(made), Prefetched(made.batch, range(int(n_batches))) as batches:
        for step, _ in enumerate(batches):
            if step == 0:  # the pool is filled once
                start, batches.waited_s = time.monotonic(), 0.0
            time.sleep(float(seconds))
            decoded, used = made.n_bytes
            record = {
                "step": step,
                "held": process.memory_info().rss,
                "decoded": decoded,
                "used": used,
                "waited_s": batches.waited_s,
                "seconds": time.monotonic() - start,
                "samples_per_slab": schedule.samples_per_slab,
            }
            sys.stdout.write(f"{json.dumps(record)}\n")


if __name__ == "__main__":
    main()
