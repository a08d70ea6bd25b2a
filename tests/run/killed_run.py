"""A run in a process of its own, slow enough to be killed: `killed_run.py RUN_FILE [DEADLY_APPEND]`.

It prints a line when work begins. With DEADLY_APPEND n it kills itself with SIGKILL in place of writing the
n-th receipt, so between the data and the receipt.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from vemdiffuse_pipe.config import load
from vemdiffuse_pipe.output.measurements import with_contrast
from vemdiffuse_pipe.records.events import Event, RunStarted
from vemdiffuse_pipe.records.segments import SegmentWriter
from vemdiffuse_pipe.running.execution import run_plan
from vemdiffuse_pipe.running.reconstruct import prepare
from vemdiffuse_pipe.testing import SlowSource


def say(event: Event) -> None:
    if isinstance(event, RunStarted):
        sys.stdout.write("started\n")
        sys.stdout.flush()


def die_at_append(n: int) -> None:
    """Make the n-th receipt the last thing that this process ever does."""
    append, numbers = SegmentWriter.append, count(1)

    def deadly(writer: SegmentWriter, record: Mapping[str, object]) -> None:
        if next(numbers) == n:
            os.kill(os.getpid(), signal.SIGKILL)
        append(writer, record)  # type: ignore[arg-type]

    SegmentWriter.append = deadly  # type: ignore[method-assign,assignment]


def main() -> int:
    path, *deadly = sys.argv[1:]
    for n in deadly:
        die_at_append(int(n))
    source, plan = prepare(load(Path(path)))
    slow = SlowSource(source, 0.05)
    outcome = run_plan(with_contrast(plan, source), slow, listener=say)
    sys.stdout.write(f"{outcome.stopped}\n")
    return outcome.exit_code


if __name__ == "__main__":
    sys.exit(main())
