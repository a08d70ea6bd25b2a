"""Train, be killed with SIGKILL at random moments, and train on: `killed_training.py FILE LOG TIMES`.

Each training is a process of its own, forked from one that has imported everything, so that little time is
lost. It waits until the training has written to its log, and a little longer. Prints how often it killed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch._dynamo  # noqa: F401 (what the first optimiser imports, slowly)

from vemdiffuse_pipe.cli.entry import run_command
from vemdiffuse_pipe.training.run import train  # noqa: F401 (imported once, before the forks)


def killed(file: str, log: Path, chance: random.Random) -> bool:
    """True where the training was killed; False where it ended first."""
    begun_at = log.stat().st_mtime_ns if log.exists() else 0
    child = os.fork()
    if child == 0:
        os._exit(run_command(["train", file]))
    while not log.exists() or log.stat().st_mtime_ns == begun_at:
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.3))
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main() -> int:
    file, log, times = sys.argv[1:]
    chance = random.Random(5)
    n_killed = 0
    while n_killed < int(times) and killed(file, Path(log), chance):
        n_killed += 1
    sys.stdout.write(f"{n_killed}\n")
    return run_command(["train", file])


if __name__ == "__main__":
    sys.exit(main())
