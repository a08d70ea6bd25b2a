"""Parts of a run in processes of their own: `part_process.py RUN_FILE DELAY_S PART...`

One process a part, all let go at one moment; what is imported is imported once, before. Each waits DELAY_S
before it reads, prints `started` when it works, and in the end its outcome.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import tensorstore  # noqa: F401
import torch  # noqa: F401

from vemdiffuse_pipe.config import RunFile, load
from vemdiffuse_pipe.output.measurements import with_measurements
from vemdiffuse_pipe.records.events import Event, RunStarted
from vemdiffuse_pipe.records.parts import parse_part
from vemdiffuse_pipe.running.execution import run_plan
from vemdiffuse_pipe.running.reconstruct import prepare
from vemdiffuse_pipe.testing import SlowSource


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())  # one write: lines of several processes do not mix


def hear(event: Event) -> None:
    if isinstance(event, RunStarted):
        say("started")


def do(run_file: RunFile, delay_s: float, part: str) -> int:
    source, plan = prepare(run_file)
    plan = with_measurements(plan, source)
    outcome = run_plan(plan, SlowSource(source, delay_s), part=parse_part(part, os.environ), listener=hear)
    say(f"{part} {outcome.n_done} {outcome.n_rendered} {outcome.stopped}".strip())
    return outcome.exit_code


def main() -> int:
    path, delay_s, *parts = sys.argv[1:]
    run_file = load(Path(path))
    if len(parts) == 1:
        return do(run_file, float(delay_s), parts[0])
    gate, opens = os.pipe()
    pids = []
    for part in parts:
        if not (pid := os.fork()):
            os.close(opens)
            os.read(gate, 1)  # until the gate is opened
            os._exit(do(run_file, float(delay_s), part))
        pids.append(pid)
    os.close(opens)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids)


if __name__ == "__main__":
    sys.exit(main())
