"""The runner of one process: part I of N, and all of it as part 1 of 1.

No scheduler, no other process needed.
"""

from __future__ import annotations

from contextlib import closing
from threading import Event as Flag

from vemdiffuse_pipe.cluster.walltime import Deadline
from vemdiffuse_pipe.records.parts import Part, Share
from vemdiffuse_pipe.running.crashes import CrashTracker
from vemdiffuse_pipe.running.failure_policy import FailurePolicy
from vemdiffuse_pipe.running.local.local_worker import LocalWorker
from vemdiffuse_pipe.running.local.pipeline import Pipeline, until
from vemdiffuse_pipe.running.session import RunSession
from vemdiffuse_pipe.running.stages import open_worker_context
from vemdiffuse_pipe.storage.retry import RetryPolicy

WHOLE = Part(1, 1)


class LocalRunner:
    """Does a part of a job in this process, then unfinished blocks of other parts."""

    def __init__(
        self,
        part: Part | None = None,
        *,
        n_workers: int = 1,
        deadline: Deadline | None = None,
        max_blocks: int | None = None,
        retry_policy: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
        recheck_s: float | None = None,
    ) -> None:
        """`part`: else the whole. `n_workers`: blocks computed at once. `deadline`: when this process is
        ended.

        `max_blocks`: no more are started. `recheck_s`: least seconds between two looks at what other
        processes have done, while helping them.
        """
        self._part = part or WHOLE
        self._is_part = part is not None
        self._deadline = deadline or Deadline(None)
        self._max_blocks = max_blocks
        self._retry_policy = retry_policy
        self._recheck_s = recheck_s
        self.n_workers = n_workers

    @property
    def engine(self) -> str:
        """'threads', or which part."""
        return f"part {self._part}" if self._is_part else "threads"

    @property
    def share(self) -> Share:
        """The blocks of the part."""
        return self._part.own

    def run(self, session: RunSession) -> str:
        """Do the part, then help with other parts. Why it stopped early, or ''."""
        job, progress = session.job, session.progress
        is_over = Flag()
        emit = until(is_over, session.emit)
        context = open_worker_context(job, self._retry_policy, emit=emit, journal=session.journal)
        pipeline = Pipeline(
            context, session.inbox, progress.is_missing, n_workers=self.n_workers, is_over=is_over
        )
        worker = LocalWorker(
            progress,
            pipeline,
            FailurePolicy(session.recorder, session.recorder.failed_here),
            self._deadline,
            CrashTracker(job.records, progress, session.journal),
            max_blocks=self._max_blocks,
            recheck_s=self._recheck_s,
        )
        with closing(context.receipts), pipeline:
            stopped = worker.run(self._part, columns=job.by_columns)
        worker.collect_last()
        session.is_out_of_time = worker.is_out_of_time
        return stopped
