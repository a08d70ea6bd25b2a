"""Run a run file in a process that may not hold more than so many bytes; print what it held at most.

python limited_run.py FILE LIMIT_BYTES
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def main() -> None:
    limit = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    from vemdiffuse_pipe import config
    from vemdiffuse_pipe.running.reconstruct import run
    from vemdiffuse_pipe.running.stages import peak_bytes

    outcome = run(config.load(Path(sys.argv[1])))
    sys.stdout.write(str(peak_bytes()))
    sys.exit(outcome.exit_code)


if __name__ == "__main__":
    main()
