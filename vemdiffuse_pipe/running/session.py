"""How a run begins, whoever does its work: the output is there, what is done is read, signals are heard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from signal import Signals

from vemdiffuse_pipe.cluster import signals
from vemdiffuse_pipe.cluster.hosts import device_name
from vemdiffuse_pipe.output.mask import begin_output
from vemdiffuse_pipe.plan.plan import Plan, digest
from vemdiffuse_pipe.records.events import Listener
from vemdiffuse_pipe.records.journal import Journal
from vemdiffuse_pipe.running.crashes import CrashedError, CrashTracker
from vemdiffuse_pipe.running.outcomes import FailurePolicy, RunRecorder, one_at_a_time
from vemdiffuse_pipe.running.progress import Progress
from vemdiffuse_pipe.storage import parse_address


@dataclass(frozen=True, slots=True)
class RunSession:
    """A run that has begun in this process."""

    progress: Progress
    recorder: RunRecorder
    deaths: CrashTracker
    heard: signals.Heard

    def mark_crashing_blocks_failed(self) -> None:
        """Read who has died by now, and give up what is to be blamed for it."""
        for work in self.deaths.read_again():
            FailurePolicy(self.recorder).blame(work, CrashedError())


@contextmanager
def begun(plan: Plan, listener: Listener, put: Callable[[Signals], None]) -> Iterator[RunSession]:
    """While it lasts, the run is under way, and a signal is `put`. Raises what `begin_output` raises."""
    begin_output(plan)
    address = parse_address(plan.run_file.output.url)
    progress = Progress(address, digest(plan.identity()), plan.blocks, plan.shards)
    journal = Journal(address, plan.blocks.block_shape, device_name(plan.run_file.run.device))
    recorder = RunRecorder(progress, one_at_a_time(listener), journal)
    with signals.received(put) as heard, closing(progress), journal:
        yield RunSession(progress, recorder, CrashTracker(address, progress, journal), heard)
