"""Training out of core: what is held does not grow with what is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from large_volume import large_volume
from servers import s3


@pytest.mark.slow
def test_a_volume_many_times_larger_than_what_is_held_is_trained_on_in_flat_memory(tmp_path: Path) -> None:
    script = Path(__file__).with_name("limited_loading.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    with s3() as endpoint:
        url = large_volume(endpoint, tmp_path, (4, 4, 4))
        command = [sys.executable, str(script), url, str(10**9), "60", "0", "32"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    records = [json.loads(line) for line in done.stdout.splitlines()]
    early, late = records[15], records[-1]
    assert late["decoded"] - early["decoded"] > 3 * 10**8
    assert late["held"] - early["held"] < 5 * 10**7
