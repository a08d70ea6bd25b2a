"""A runner does all the blocks of a job that are missing. There is one for each situation:

    running.local    this process alone: threads, part I of N
    running.dask     workers that are other processes: local, tcp://.., slurm, lsf, pbs, sge

`run_job` is the same for both: open the records, emit what happens, say how it ended.
"""

from __future__ import annotations

from typing import Protocol

from vemdiffuse_pipe.errors import VemdiffuseError
from vemdiffuse_pipe.records.events import Listener, Outcome, RunEnded, RunStarted, RunStopped, silent
from vemdiffuse_pipe.records.parts import Share
from vemdiffuse_pipe.running.job import BlockJob
from vemdiffuse_pipe.running.session import RunSession, open_session
from vemdiffuse_pipe.storage.retry import reason_of


class Runner(Protocol):
    """Does the missing blocks of a session's job, in this process or by others."""

    @property
    def engine(self) -> str:
        """Where the work is done, as events and logs call it."""
        ...

    @property
    def n_workers(self) -> int:
        """Workers at once, as far as that is known."""
        ...

    @property
    def share(self) -> Share:
        """The blocks that this runner is to do; it may do others when these are done."""
        ...

    def run(self, session: RunSession) -> str:
        """Do the missing blocks. Why it stopped early, in one sentence, or ''.

        Raises InputError, StorageFullError.
        """
        ...


def run_job(job: BlockJob, runner: Runner, *, listener: Listener = silent) -> Outcome:
    """Do what `job` says and its records lack. Its output must be there.

    Raises InputError, StorageFullError, DataError and TransientError of the records.
    """
    with open_session(job, listener) as session:
        session.emit(_started(session, runner))
        try:
            stopped = runner.run(session) if session.progress.n_missing() else ""
            if not session.progress.n_missing():
                job.finish()
        except VemdiffuseError as error:
            session.emit(RunStopped(reason_of(error)))
            raise
        outcome = session.outcome(stopped)
        session.emit(RunEnded(outcome))
    return outcome


def _started(session: RunSession, runner: Runner) -> RunStarted:
    """The voxels are the runner's share of those that are missing."""
    job, progress = session.job, session.progress
    n_missing = progress.n_missing()
    n_own = progress.n_missing(columns=job.by_columns, share=runner.share)
    return RunStarted(
        title=job.title,
        digest=job.digest,
        engine=runner.engine,
        workers=runner.n_workers,
        n_missing=n_own,
        n_voxels=round(progress.n_voxels_missing() * n_own / max(1, n_missing)),
    )
