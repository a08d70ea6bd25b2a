"""The command line, where reading a certain block kills the process: `deadly_process.py BLOCK ARGUMENTS...`

As the OOM killer does: no handler runs, nothing is flushed.
"""

from __future__ import annotations

import os
import signal
import sys

from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.running import stages
from vemdiffuse_pipe.running.stages import LoadedBlock, WorkerContext

DEADLY, *ARGUMENTS = sys.argv[1:]
_read = stages.read


def read(context: WorkerContext, work: Work) -> LoadedBlock:
    if work.block_index == int(DEADLY):
        os.kill(os.getpid(), signal.SIGKILL)
    return _read(context, work)


stages.read = read

if __name__ == "__main__":
    from vemdiffuse_pipe.cli import main

    main(ARGUMENTS)
