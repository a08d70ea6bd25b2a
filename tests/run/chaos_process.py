"""The command line, with each render slowed down and written to a log: `chaos_process.py LOG SECONDS ...`.

Worker processes import this file too, so what they render is in the same log: a line a render, its block.
"""

from __future__ import annotations

import os
import sys
import time

from vemdiffuse_pipe.running import stages
from vemdiffuse_pipe.running.stages import ComputedBlock, LoadedBlock, WorkerContext

LOG, SECONDS, *ARGUMENTS = sys.argv[1:]
_compute = stages.compute


def compute(context: WorkerContext, block: LoadedBlock) -> ComputedBlock:
    log = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{block.work.block_index}\n".encode())
    os.close(log)
    time.sleep(float(SECONDS))
    return _compute(context, block)


stages.compute = compute

if __name__ == "__main__":
    from vemdiffuse_pipe.cli import main

    main(ARGUMENTS)
