"""How a run begins, whoever does its work: the output is there, what is done is read, signals are heard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from signal import Signals

from vemdiffuse_pipe.cluster import signals
from vemdiffuse_pipe.cluster.hosts import device_name
from vemdiffuse_pipe.plan.plan import Plan, digest
from vemdiffuse_pipe.records.events import Listener
from vemdiffuse_pipe.records.journal import Journal
from vemdiffuse_pipe.running.deaths import Deaths, DiedError
from vemdiffuse_pipe.running.endings import Bookkeeper, Endings, one_at_a_time
from vemdiffuse_pipe.running.mask import begin_output
from vemdiffuse_pipe.running.progress import Progress
from vemdiffuse_pipe.storage import parse_address


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that has begun in this process."""

    progress: Progress
    keeper: Bookkeeper
    deaths: Deaths
    heard: signals.Heard

    def blame_what_processes_died_of(self) -> None:
        """Read who has died by now, and give up what is to be blamed for it."""
        for work in self.deaths.read_again():
            Endings(self.keeper).blame(work, DiedError())


@contextmanager
def begun(plan: Plan, listener: Listener, put: Callable[[Signals], None]) -> Iterator[Begun]:
    """While it lasts, the run is under way, and a signal is `put`. Raises what `begin_output` raises."""
    begin_output(plan)
    address = parse_address(plan.run_file.output.url)
    progress = Progress(address, digest(plan.identity()), plan.blocks, plan.shards)
    journal = Journal(address, plan.blocks.block_shape, device_name(plan.run_file.run.device))
    keeper = Bookkeeper(progress, one_at_a_time(listener), journal)
    with signals.received(put) as heard, closing(progress), journal:
        yield Begun(progress, keeper, Deaths(address, progress, journal), heard)
