"""A run in a process of its own that never gets far, so that it can be looked at: `slow_run.py RUN_FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from vemdiffuse_pipe.config import load
from vemdiffuse_pipe.running.execution import run_plan
from vemdiffuse_pipe.running.reconstruct import prepare
from vemdiffuse_pipe.testing import SlowSource

if __name__ == "__main__":
    source, plan = prepare(load(Path(sys.argv[1])))
    run_plan(plan, SlowSource(source, 60.0))
