"""A flaky network is never turned into voxels: a real S3 server behind a proxy that spoils requests."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr
from faulty_proxy import ALL_FAULTS, FaultyProxy
from servers import BUCKET, s3, upload
from small_runs import SHAPE, interpolated, small_run, stored

from vemdiffuse_pipe.config import RunFile, dump
from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.monitor.status import status
from vemdiffuse_pipe.running.execution import run_plan
from vemdiffuse_pipe.running.reconstruct import prepare, retry, run
from vemdiffuse_pipe.running.verify import verify
from vemdiffuse_pipe.storage import open_source
from vemdiffuse_pipe.storage.retry import RetryPolicy
from vemdiffuse_pipe.testing import position_coded

TRUTH = interpolated(position_coded(SHAPE), 5)
SCRIPT = Path(__file__).with_name("killed_run.py")
ONCE = RetryPolicy(n_attempts=1)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An S3 server, and credentials that let us write."""
    before = dict(os.environ)
    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test")
    with s3() as url:
        yield url
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ.pop(key)
        os.environ |= {key: before[key]} if key in before else {}


@pytest.fixture
def in_bucket(endpoint: str, tmp_path: Path) -> str:
    """The path in the bucket of the small volume, in chunks of one section."""
    array = zarr.create_array(
        tmp_path / "em.zarr",
        data=position_coded(SHAPE),
        chunks=(1, 16, 16),
        config={"write_empty_chunks": True},
    )
    assert array.shape == SHAPE
    upload(tmp_path / "em.zarr", endpoint, f"{tmp_path.name}/em.zarr")
    return f"{BUCKET}/{tmp_path.name}"


def remote_run(folder: Path, store: str, path: str, output: str, **tables: dict[str, object]) -> RunFile:
    source = {"url": f"s3+{store}/{path}/em.zarr", "voxel_size_nm": (40, 8, 8)}
    return small_run(folder, source=source, output={"url": f"s3+{store}/{path}/{output}"}, **tables)


@pytest.mark.slow
def test_one_request_in_twenty_fails_and_the_voxels_are_the_same(
    tmp_path: Path, endpoint: str, in_bucket: str
) -> None:
    with FaultyProxy(endpoint, share=0.05, kinds=ALL_FAULTS, seed=1) as proxy:
        run_file = remote_run(tmp_path, proxy.url, in_bucket, "out.zarr")
        outcome = run(run_file)
        found = status(run_file.output.url)
        assert (outcome.exit_code, outcome.failed_blocks) == (0, ())
        np.testing.assert_array_equal(stored(run_file), TRUTH)
        spoiled = sum(proxy.faults[kind] for kind in ("503", "429", "truncated"))
        assert spoiled > 5
        assert found.n_requests_failed >= spoiled // 2  # the others met metadata and receipts
        assert found.bytes_fetched > 0


@pytest.mark.slow
def test_a_store_that_answers_nobody_ends_the_run_and_retry_completes_it(
    tmp_path: Path, endpoint: str, in_bucket: str
) -> None:
    with FaultyProxy(endpoint, kinds=("503", "reset")) as proxy:
        source = {"url": f"s3+{proxy.url}/{in_bucket}/em.zarr", "voxel_size_nm": (40, 8, 8)}
        run_file = small_run(tmp_path, source=source, run={"block_shape": (16, 48, 64)})
        opened, plan = prepare(run_file)
        proxy.share = 1.0
        outcome = run_plan(plan, opened, retry_policy=ONCE)
        assert outcome.exit_code == 1
        assert len(outcome.failed_blocks) == outcome.n_blocks == 2
        assert all(block.reason.startswith("TransientError") for block in outcome.failed_blocks)
        proxy.share = 0.0
        assert retry(run_file.output.url).exit_code == 0
        np.testing.assert_array_equal(stored(run_file), TRUTH)


def test_what_does_not_decode_is_asked_for_again_before_it_is_believed(endpoint: str, in_bucket: str) -> None:
    with FaultyProxy(endpoint, kinds=("short",), most=2) as proxy:
        source = open_source(f"s3+{proxy.url}/{in_bucket}/em.zarr", voxel_size_nm=(40, 8, 8))
        proxy.share = 1.0
        np.testing.assert_array_equal(source.read(source.spec.frame.box), position_coded(SHAPE))
        assert proxy.faults["short"] == 2


def test_metadata_that_was_cut_on_its_way_is_asked_for_again(endpoint: str, in_bucket: str) -> None:
    with FaultyProxy(endpoint, share=1.0, kinds=("short",), most=2) as proxy:
        source = open_source(f"s3+{proxy.url}/{in_bucket}/em.zarr", voxel_size_nm=(40, 8, 8))
        assert source.spec.shape == SHAPE
        assert proxy.faults["short"] == 2


def test_metadata_that_is_forbidden_or_absent_is_not_asked_for_again(endpoint: str, in_bucket: str) -> None:
    with FaultyProxy(endpoint) as proxy:
        with pytest.raises(SourceError, match="holds no volume's metadata"):
            open_source(f"s3+{proxy.url}/{in_bucket}/nothing")
        assert proxy.n_requests < 20


@pytest.mark.slow
def test_from_s3_to_s3_killed_at_random_moments_is_from_disk_to_disk(
    tmp_path: Path, endpoint: str, in_bucket: str
) -> None:
    run_file = remote_run(tmp_path, endpoint, in_bucket, "killed.zarr")
    path, chance = tmp_path / "run.toml", random.Random(5)
    path.write_text(dump(run_file))
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])}
    n_killed = 0
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(path)], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        time.sleep(chance.uniform(0.05, 0.6))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        n_killed += process.returncode == -signal.SIGKILL
    assert n_killed > 2
    assert run(run_file).exit_code == 0
    np.testing.assert_array_equal(stored(run_file), TRUTH)
    assert verify(run_file.output.url).is_good
