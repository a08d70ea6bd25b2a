"""The runner whose workers are other processes: of this machine, of a dask cluster, or batch jobs."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

from distributed import Client

from vemdiffuse_pipe.cluster.engines import connect, window
from vemdiffuse_pipe.config import ClusterTable, RunTable
from vemdiffuse_pipe.records.events import DashboardServed
from vemdiffuse_pipe.records.parts import EVERYTHING, Share
from vemdiffuse_pipe.running.dask.driver import Target, drive
from vemdiffuse_pipe.running.dask.worker import JobPlugin, register
from vemdiffuse_pipe.running.job import BlockJob
from vemdiffuse_pipe.running.session import RunSession
from vemdiffuse_pipe.storage.retry import RetryPolicy


class DaskRunner:
    """Does a job by dask: three tasks a block, a bounded window of blocks in flight."""

    def __init__(
        self,
        table: RunTable,
        cluster: ClusterTable | None = None,
        logs: Path | None = None,
        *,
        max_blocks: int | None = None,
        retry_policy: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
    ) -> None:
        """`table`: which engine, how many workers. `cluster`, `logs`: of batch jobs."""
        self._table = table
        self._cluster = cluster
        self._logs = logs
        self._max_blocks = max_blocks
        self._retry_policy = retry_policy

    @property
    def engine(self) -> str:
        """As the run file calls it."""
        return self._table.engine

    @property
    def n_workers(self) -> int:
        """As the run file states."""
        return self._table.workers

    @property
    def share(self) -> Share:
        """All blocks."""
        return EVERYTHING

    def run(self, session: RunSession) -> str:
        """Do all missing blocks. Why it stopped early, or ''.

        Raises ConfigError where there are no workers.
        """
        job, recorder = session.job, session.recorder
        n_missing = session.progress.n_missing()
        with self._workers(job, lambda: n_missing - recorder.n_finished) as target:
            if self._table.dashboard:
                session.emit(DashboardServed(target.client.dashboard_link))
            return drive(
                target,
                islice(session.progress.missing(columns=job.by_columns), self._max_blocks),
                window(target.client, self._table),
                recorder,
                session.inbox,
                recorder.backup_started,
            )

    @contextmanager
    def _workers(self, job: BlockJob, n_left: Callable[[], int]) -> Iterator[Target]:
        """A cluster whose workers have the job open. They are gone, or have forgotten it, afterwards."""
        key, table = secrets.token_hex(4), self._table
        with ExitStack() as stack:
            client: Client = stack.enter_context(connect(table, self._cluster, self._logs, n_left))
            register(client, JobPlugin(key, job, table, self._cluster, self._retry_policy))
            if table.is_remote:  # its workers go on living
                stack.callback(client.unregister_worker_plugin, key)
            yield Target(client, key, job.verb)
