"""An output of the version before resumes, verifies and is retried, with the same voxels.

`data/older_output.zip` was written by that version: a phantom of 9 sections, the fifth black, and an output
of which 3 blocks of 24 are done and one is marked failed, for a chunk that was missing then. The contrast and
the rejected section are inside its stored run file. The run's identity has the address of its source, so that
it is unpacked where it was made.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_runs import stored_sha256

from vemdiffuse_pipe import config
from vemdiffuse_pipe.config import RunFile
from vemdiffuse_pipe.errors import OutputError
from vemdiffuse_pipe.monitor.status import status
from vemdiffuse_pipe.output.run_output import open_run_output
from vemdiffuse_pipe.plan.measured import Measured
from vemdiffuse_pipe.running.reconstruct import retry, run
from vemdiffuse_pipe.running.verify import verify

FOLDER = Path("/tmp/vemdiffuse_older_output")
WHOLE_RUN_SHA256 = "88d3e766cd80538403c5daf323cf68f3f8423fde7e646c6011bf48e40656c462"  # by the older version


@pytest.fixture
def older() -> Iterator[RunFile]:
    """The run file as its user stated it, with the output where it was made."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    with zipfile.ZipFile(Path(__file__).with_name("data") / "older_output.zip") as archive:
        archive.extractall(FOLDER)
    yield config.parse(
        {
            "source": {"url": str(FOLDER / "source.zarr" / "em"), "bad_sections": "bridge"},
            "output": {
                "url": str(FOLDER / "out.zarr"),
                "chunk_shape": (8, 24, 32),
                "shard_shape": (8, 24, 32),
            },
            "model": {"samples": 1, "steps": 2, "tile_px": 32, "overlap_px": 8},
            "run": {"block_shape": (8, 24, 32)},
        }
    )
    shutil.rmtree(FOLDER, ignore_errors=True)


def test_an_older_output_resumes_is_retried_and_verified_with_the_same_voxels(older: RunFile) -> None:
    url = older.output.url
    output = open_run_output(url)
    assert output.measured == Measured((118.182, 22.1), (4,))
    before = status(output)
    assert (before.n_blocks_done, [block.block_index for block in before.failed_blocks]) == (3, [12])

    with pytest.raises(OutputError, match="seed 0 -> 1"):
        run(older.model_copy(update={"model": older.model.model_copy(update={"seed": 1})}))
    resumed = run(older)
    assert (resumed.n_rendered, resumed.n_done, len(resumed.failed_blocks)) == (20, 23, 1)
    assert retry(url).n_rendered == 1

    assert verify(url, n_rendered=2).is_good
    assert stored_sha256(older) == WHOLE_RUN_SHA256
