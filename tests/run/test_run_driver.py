"""The driver: how much it has in flight, and what it asks of a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace

import pytest
from small_runs import small_run

from vemdiffuse_pipe.cluster.engines import check_resources, connect
from vemdiffuse_pipe.config import RunTable
from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.output.run_output import create_run_output
from vemdiffuse_pipe.records.shards import ShardSet, Work, missing_work
from vemdiffuse_pipe.running.dask.driver import Target, drive
from vemdiffuse_pipe.running.dask.worker import JobPlugin, register
from vemdiffuse_pipe.running.reconstruct import prepare
from vemdiffuse_pipe.running.render_job import RenderJob
from vemdiffuse_pipe.storage.retry import RetryPolicy


class Watched:
    """Work that counts what was taken of it, and a reporter that counts what ended."""

    def __init__(self, work: Iterator[Work]) -> None:
        self._work = work
        self.n_taken = self.n_ended = self.most_in_flight = 0

    def __iter__(self) -> Iterator[Work]:
        for work in self._work:
            self.n_taken += 1
            self.most_in_flight = max(self.most_in_flight, self.n_taken - self.n_ended)
            yield work

    def done(self, work: Work) -> None:
        self.n_ended += 1

    def mark_failed(self, work: Work, reason: str, n_attempts: int) -> None:
        raise AssertionError(reason)


def test_work_is_launched_only_when_the_window_has_room(tmp_path: Path) -> None:
    _, plan = prepare(small_run(tmp_path))
    create_run_output(plan)
    table = RunTable(engine="local")
    with connect(table) as client:
        register(client, JobPlugin("k", RenderJob(plan), table, None, RetryPolicy()))
        for window in (1, 3):
            watched = Watched(missing_work(plan.blocks, ShardSet(plan.shards)))
            assert drive(Target(client, "k"), iter(watched), window, watched, SimpleQueue()) == ""
            assert (watched.n_taken, watched.n_ended) == (24, 24)
            assert watched.most_in_flight == window


def cluster(*resources: dict[str, float]) -> SimpleNamespace:
    """A client that knows workers with these resources."""
    workers = {f"worker-{i}": {"resources": each} for i, each in enumerate(resources)}
    return SimpleNamespace(scheduler_info=lambda: {"workers": workers})


def test_workers_without_the_resource_are_refused_instead_of_waited_for() -> None:
    with pytest.raises(ConfigError, match="none of the 2 workers has the resource GPU=1"):
        check_resources(cluster({}, {"GPU": 0}))  # type: ignore[arg-type]


def test_one_worker_with_the_resource_is_enough() -> None:
    check_resources(cluster({}, {"GPU": 1}))  # type: ignore[arg-type]
