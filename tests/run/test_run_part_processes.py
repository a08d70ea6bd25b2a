"""Parts in processes of their own: at once, killed, drained, out of time. No voxel is lost or differs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from servers import BUCKET, s3
from small_runs import SHAPE, interpolated, receipt_files, small_run, stored

from vemdiffuse_pipe.config import RunFile, dump
from vemdiffuse_pipe.monitor.status import status
from vemdiffuse_pipe.output.run_output import open_run_output
from vemdiffuse_pipe.records.folder import records_of
from vemdiffuse_pipe.records.receipts import read_receipts
from vemdiffuse_pipe.running.reconstruct import run
from vemdiffuse_pipe.running.verify import verify
from vemdiffuse_pipe.storage import parse_address
from vemdiffuse_pipe.testing import position_coded

SCRIPT = Path(__file__).with_name("part_process.py")
N = 16

Process = subprocess.Popen[str]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with s3() as endpoint:
        yield f"s3+{endpoint}/{BUCKET}"


def start(run_file: RunFile, delay_s: float, *parts: str, **environ: str) -> Process:
    """Begin parts in other processes."""
    path = Path(run_file.source.url).parents[1] / "run.toml"
    path.write_text(dump(run_file))
    command = [sys.executable, str(SCRIPT), str(path), str(delay_s), *parts]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2]), "OMP_NUM_THREADS": "1", **environ}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


def until_it_works(process: Process) -> Process:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "started\n", line + process.communicate()[1]
    return process


def checksums(run_file: RunFile) -> dict[int, list[str]]:
    """What the receipts say of each shard, once a receipt."""
    url = run_file.output.url
    digest = open_run_output(url).digest
    found: dict[int, list[str]] = {}
    for _, receipt in read_receipts(records_of(parse_address(url)), digest):
        for shard, checksum in zip(receipt.shards, receipt.checksums["em"], strict=True):
            found.setdefault(shard, []).append(checksum)
    return found


def assert_whole(run_file: RunFile) -> None:
    """Every shard has receipts that agree, verify finds them right, and each voxel is what scipy says."""
    found = checksums(run_file)
    assert sorted(found) == list(range(status(run_file.output.url).n_shards))
    assert all(len(set(sums)) == 1 for sums in found.values())
    assert verify(run_file.output.url).is_good
    np.testing.assert_array_equal(stored(run_file), interpolated(position_coded(SHAPE), 5))


def all_at_once(run_file: RunFile) -> None:
    process = start(run_file, 0.05, *(f"{i}/{N}" for i in range(1, N + 1)))
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, ""), out
    ended = [line.split() for line in out.splitlines() if "/" in line]
    assert len(ended) == N
    assert {n_done for _, n_done, _ in ended} == {"48"}
    assert_whole(run_file)


BLOCKS = {"block_shape": (8, 16, 16)}  # 48


@pytest.mark.slow
def test_sixteen_parts_at_once_make_one_output_on_a_disk(tmp_path: Path) -> None:
    all_at_once(small_run(tmp_path, run=BLOCKS))


@pytest.mark.slow
def test_sixteen_parts_at_once_make_one_output_on_s3(tmp_path: Path, bucket: str) -> None:
    all_at_once(small_run(tmp_path, run=BLOCKS, output={"url": f"{bucket}/out.zarr"}))


@pytest.mark.slow
def test_what_a_killed_part_leaves_the_others_do(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    killed = until_it_works(start(run_file, 1.0, "1/3"))
    while not receipt_files(run_file):
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    others = start(run_file, 0.0, "2/3", "3/3")
    out, err = others.communicate(timeout=120)
    assert (others.returncode, err) == (0, ""), out
    assert_whole(run_file)


@pytest.mark.slow
def test_a_free_part_helps_one_that_is_slow(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    slow = until_it_works(start(run_file, 2.0, "1/2"))
    quick = start(run_file, 0.0, "2/2")
    out, err = quick.communicate(timeout=120)
    assert (quick.returncode, err) == (0, ""), out
    n_quick = int(out.split()[3])
    out, err = slow.communicate(timeout=120)
    assert (slow.returncode, err) == (0, "")
    assert n_quick > 12  # its own, and some that were not
    assert sum(map(len, checksums(run_file).values())) <= 48 + 2 * 3  # a window of blocks of two shards
    assert_whole(run_file)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_drains_a_part_and_nothing_is_lost(tmp_path: Path, number: signal.Signals) -> None:
    run_file = small_run(tmp_path)
    process = until_it_works(start(run_file, 0.2, "1/2"))
    while not receipt_files(run_file):
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    n_done = status(run_file.output.url).n_blocks_done
    assert 0 < n_done < 24
    assert out == f"1/2 {n_done} {n_done} {number.name} was received; rerun to resume\n"
    assert run(run_file).n_rendered == 24 - n_done
    assert Counter(map(len, checksums(run_file).values())) == {1: 48}
    assert_whole(run_file)


def begun_and_signalled(
    folder: Path, run_file: RunFile, number: signal.Signals, *arguments: str
) -> tuple[int, str, str]:
    """`vemdiffuse run`, signalled as soon as it says what is to become of the signal."""
    path = folder / "run.toml"
    path.write_text(dump(run_file))
    process = subprocess.Popen(
        [*COMMAND, str(path), *arguments],
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    says = Path(f"/proc/{process.pid}/status")
    while not int(says.read_text().partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1:
        time.sleep(0.001)
    assert not Path(run_file.output.url).exists()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks into /proc")
@pytest.mark.parametrize(
    ("number", "arguments"), [(signal.SIGTERM, ()), (signal.SIGUSR1, ("--part", "1/2"))], ids=["run", "part"]
)
def test_a_signal_before_anything_is_begun_is_no_failure(
    tmp_path: Path, number: signal.Signals, arguments: tuple[str, ...]
) -> None:
    run_file = small_run(tmp_path)
    code, out, err = begun_and_signalled(tmp_path, run_file, number, *arguments)
    assert (code, out) == (0, "")
    assert err == (f"vemdiffuse: {number.name} was received before a block was started; rerun to resume\n")
    assert not Path(run_file.output.url).exists()


COMMAND = (sys.executable, "-m", "vemdiffuse_pipe", "run")


def command_line(folder: Path, run_file: RunFile, *arguments: str, **environ: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `vemdiffuse run`."""
    path = folder / "run.toml"
    path.write_text(dump(run_file))
    done = subprocess.run(
        [*COMMAND, str(path), *arguments],
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[2]), **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_a_job_whose_time_is_over_makes_way_and_says_so(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    code, out, err = command_line(
        tmp_path, run_file, "--part", "1/2", SLURM_JOB_END_TIME=str(int(time.time()) - 5)
    )
    assert code == 0
    assert "is not complete: 0 of 24 blocks are done" in out
    assert err.splitlines()[-1] == (
        "vemdiffuse: 0 of 24 blocks are done; the time of this job is nearly over, and no block could be "
        "finished in it: give it more, or make block_shape in [run] smaller; rerun to resume"
    )
    code, out, err = command_line(tmp_path, run_file, "--part", "1/2", "--walltime", "01:00:00")
    assert (code, "is complete" in out) == (0, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--part", "0/8"),
        ("--part", "auto"),
        ("--part", "1/2", "--walltime", "4h"),
        ("--walltime", "1:00:00"),
        ("--part", "1/2", "--engine", "local"),
    ],
)
def test_a_part_that_there_is_not_is_refused_and_nothing_written(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    run_file = small_run(tmp_path)
    code, out, err = command_line(tmp_path, run_file, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("vemdiffuse: ")
    assert not Path(run_file.output.url).exists()
