"""Where the records of a job lie: receipts, failures, events, heartbeats, what a mask leaves out.

<output>/.vemdiffuse/                    of the run that fills the output
<output>/.vemdiffuse/jobs/pyramid-1/     of another job on the same output, by its name
"""

from __future__ import annotations

import re

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.storage.address import Address

RECORDS = ".vemdiffuse"
JOBS = "jobs"


def records_of(output: Address) -> Address:
    """The folder with the records of the run that fills `output`."""
    return output / RECORDS


def records_of_job(output: Address, name: str) -> Address:
    """The folder with the records of another job on `output`. `name`: letters, digits, `.`, `_` and `-`.

    Raises ConfigError for another name.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", name, re.ASCII):
        raise ConfigError(f"job name {name[:40]!r}; letters, digits, '.', '_' and '-' are needed")
    return records_of(output) / JOBS / name
