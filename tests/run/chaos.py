"""Runs that are killed again and again: is a block lost, a shard torn, a voxel different, what is done twice?

    PYTHONPATH=tests:tests/run python tests/run/chaos.py --runs 100

A run has 60 blocks and is one of

    threads   one process             killed: the process
    local     a driver, two workers   killed: the driver, a worker, or both
    parts     three processes         killed: one of them, or all

on a disk, on a disk that fills once, or on S3 behind a proxy that fails 2 % of the puts. It is begun again
after each kill and, in the end, until it is complete. Window x workers blocks may be rendered twice for each
start that was cut short; and for the last one where there are several workers, since the slowest blocks are
then given to a second worker.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import click
import psutil
from faulty_proxy import FaultyProxy
from servers import BUCKET, s3
from small_runs import small_run, stored_sha256

from vemdiffuse_pipe.config import RunFile, dump
from vemdiffuse_pipe.monitor.status import status
from vemdiffuse_pipe.running.reconstruct import run
from vemdiffuse_pipe.running.verify import verify

ROOT = Path(__file__).parents[2]
PROCESS = Path(__file__).with_name("chaos_process.py")
SHAPE = (9, 73, 53)  # at r = 5: 41 planes
SHARD = {"chunk_shape": (8, 16, 16), "shard_shape": (8, 16, 16)}
BLOCK = (8, 16, 32)  # 6 x 5 x 2 blocks
ENGINES = ("threads", "local", "parts")
PLACES = ("disk", "full disk", "s3")
WORKERS = {"threads": 1, "local": 2, "parts": 3}
WINDOW = 3  # blocks in flight of a worker
SECONDS = 0.05  # a render
MAX_STARTS = 40
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@dataclass(frozen=True)
class Result:
    """What became of one run. `n_twice`: renders beyond one a block.

    `n_allowed`: window x workers for each start that was cut short, and for the last one where several
    workers help each other with what is slow.
    """

    engine: str
    place: str
    n_kills: int
    n_starts: int
    n_lost: int
    is_torn: bool
    is_different: bool
    n_twice: int
    n_allowed: int

    @property
    def is_good(self) -> bool:
        return not (self.n_lost or self.is_torn or self.is_different) and self.n_twice <= self.n_allowed


class Trial:
    """One run: begun, killed, begun again."""

    def __init__(self, folder: Path, run_file: RunFile, engine: str, chance: random.Random) -> None:
        self.run_file, self.engine, self.chance = run_file, engine, chance
        self.file, self.log = folder / "run.toml", folder / "renders.log"
        self.file.write_text(dump(run_file))
        self.log.touch()
        self.n_starts = 0

    def renders(self) -> list[str]:
        return self.log.read_text().split()

    def start(self) -> list[subprocess.Popen[bytes]]:
        self.n_starts += 1
        n = WORKERS[self.engine]
        parts = [["--part", f"{i}/{n}"] for i in range(1, n + 1)] if self.engine == "parts" else [[]]
        command = [sys.executable, str(PROCESS), str(self.log), str(SECONDS), "run", str(self.file)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return [
            subprocess.Popen([*command, *part], env=environment, start_new_session=True, **quiet)
            for part in parts
        ]

    def run_into_the_full_disk(self) -> None:
        """Begin, and see each process end by itself."""
        assert all(process.wait(300) == 1 for process in self.start())

    def kill_once(self) -> None:
        """Begin, wait until something was rendered and a moment longer, and kill."""
        n_before = len(self.renders())
        processes = self.start()
        while len(self.renders()) == n_before and any(p.poll() is None for p in processes):
            time.sleep(0.01)
        time.sleep(self.chance.uniform(0, 0.8))
        self._kill(processes)
        for process in processes:
            _end(process)

    def complete(self) -> None:
        """Begin again until all is done; what was set aside for want of an answer is taken up again."""
        while self.n_starts < MAX_STARTS:
            codes = [process.wait(300) for process in self.start()]
            if not any(codes):
                return
            retry = [sys.executable, "-m", "vemdiffuse_pipe", "retry", self.run_file.output.url]
            subprocess.run(retry, cwd=ROOT, capture_output=True, check=False, timeout=300)

    def _kill(self, processes: list[subprocess.Popen[bytes]]) -> None:
        victims: list[psutil.Process] = []
        if all(process.poll() is not None for process in processes):
            return
        if self.engine == "local":
            driver = psutil.Process(processes[0].pid)
            workers = [p for p in _children(driver) if "spawn_main" in " ".join(_command(p))]
            kind = self.chance.choice(("driver", "worker", "both"))
            victims += [driver] if kind != "worker" else []
            victims += [self.chance.choice(workers)] if kind != "driver" and workers else []
            if kind == "worker":  # the driver goes on: give it the time to notice
                _kill_all(victims)
                time.sleep(self.chance.uniform(0, 1.0))
                victims = [driver]
        else:
            n = self.chance.choice((1, len(processes)))
            victims += [psutil.Process(p.pid) for p in self.chance.sample(processes, n) if p.poll() is None]
        _kill_all(victims)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _kill_all(victims: list[psutil.Process]) -> None:
    for victim in victims:
        with suppress(psutil.NoSuchProcess):
            victim.kill()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process of which others were killed; its own workers end with it."""
    try:
        process.wait(120)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run_trial(folder: Path, engine: str, place: str, endpoint: str, seed: int) -> Result:
    """One run from begin to end."""
    chance = random.Random(seed)
    with _output(folder, place, endpoint, seed) as (url, make_room):
        workers = 2 if engine == "local" else 1
        table = {"block_shape": BLOCK, "engine": "local" if workers > 1 else "threads", "workers": workers}
        run_file = small_run(folder, SHAPE, output={"url": url, **SHARD}, run=table)
        trial = Trial(folder, run_file, engine, chance)
        n_kills = chance.randint(1, 4)
        if place == "full disk":
            trial.run_into_the_full_disk()
            make_room()
        for _ in range(n_kills):
            trial.kill_once()
        trial.complete()
        found = status(url)
        blocks = Counter(trial.renders())
        return Result(
            engine,
            place,
            n_kills,
            trial.n_starts,
            n_lost=found.n_blocks - found.n_blocks_done,
            is_torn=not verify(url).is_good,
            is_different=stored_sha256(run_file) != _reference(folder, run_file),
            n_twice=sum(blocks.values()) - len(blocks),
            n_allowed=WINDOW * WORKERS[engine] * (trial.n_starts - (engine == "threads")),
        )


def _reference(folder: Path, run_file: RunFile) -> str:
    unbroken = run_file.output.model_copy(update={"url": str(folder / "unbroken.zarr")})
    table = run_file.run.model_copy(update={"engine": "threads", "workers": 1})
    run_file = run_file.model_copy(update={"output": unbroken, "run": table})
    assert run(run_file).exit_code == 0
    return stored_sha256(run_file)


@contextmanager
def _output(folder: Path, place: str, endpoint: str, seed: int) -> Iterator[tuple[str, object]]:
    """Where the output goes, and what makes room there."""
    with ExitStack() as stack:
        if place == "s3":
            proxy = stack.enter_context(FaultyProxy(endpoint, 0.02, seed=seed, methods=("PUT",)))
            yield f"s3+{proxy.url}/{BUCKET}/{folder.name}.zarr", lambda: None
        elif place == "disk":
            yield str(folder / "out.zarr"), lambda: None
        else:
            disk = folder / "disk"
            disk.mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(disk)]
            subprocess.run(mount, check=True)
            stack.callback(subprocess.run, ["umount", "-l", str(disk)], check=False)
            remount = ["mount", "-o", "remount,size=64m", str(disk)]
            yield str(disk / "out.zarr"), lambda: subprocess.run(remount, check=True)


@click.command()
@click.option("--runs", default=100, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--engines", default=",".join(ENGINES), show_default=True)
def main(runs: int, seed: int, engines: str) -> None:
    """Run them and print a table."""
    combinations = list(product(engines.split(","), PLACES))
    results = []
    os.environ |= CREDENTIALS
    with s3() as endpoint, tempfile.TemporaryDirectory() as scratch:
        for i in range(runs):
            folder = Path(scratch) / f"run{i}"
            folder.mkdir()
            engine, place = combinations[i % len(combinations)]
            results.append(run_trial(folder, engine, place, endpoint, seed + i))
            click.echo(f"{i} {results[-1]}", err=True)
    for engine, place in combinations:
        mine = [r for r in results if (r.engine, r.place) == (engine, place)]
        click.echo(
            f"| {engine} | {place} | {len(mine)} | {sum(r.n_kills for r in mine)} | "
            f"{sum(r.n_lost for r in mine)} | {sum(r.is_torn for r in mine)} | "
            f"{sum(r.is_different for r in mine)} | {sum(r.n_twice for r in mine)} | "
            f"{sum(r.n_allowed for r in mine)} |"
        )
    sys.exit(0 if all(r.is_good for r in results) else 1)


if __name__ == "__main__":
    main()
