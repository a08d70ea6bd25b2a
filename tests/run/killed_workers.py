"""Workplaces whose source ends the process when a certain block is read, takes its time, or always fails."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from distributed import Worker

from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.running.dask import worker as workers
from vemdiffuse_pipe.running.dask.worker import WorkerContextPlugin
from vemdiffuse_pipe.testing import SlowSource
from vemdiffuse_pipe.volume import OnHole, Source, VolumeSpec, Voxels, unheard


class DeadlySource:
    """Reading `deadly` ends the process at once, as a crash would, until `n_deaths` have left a file."""

    def __init__(self, source: Source, deadly: Box, graves: Path, n_deaths: int) -> None:
        self._source, self._deadly = source, deadly
        self._graves, self._n_deaths = graves, n_deaths

    @property
    def spec(self) -> VolumeSpec:
        return self._source.spec

    def read(self, box: Box, on_hole: OnHole = unheard) -> Voxels:
        if box == self._deadly and len(list(self._graves.iterdir())) < self._n_deaths:
            (self._graves / str(os.getpid())).touch()
            os._exit(1)
        return self._source.read(box, on_hole)


@dataclass(frozen=True)
class KillingWorkplace(WorkerContextPlugin):
    """Opens the workplace, and makes one block deadly."""

    graves: Path
    deadly_block: int = 0
    n_deaths: int = 1000

    def setup(self, worker: Worker) -> None:
        super().setup(worker)
        place = workers._PLACES[self.key]
        deadly = self.plan.source_box(self.plan.blocks.box(self.deadly_block))
        workers._PLACES[self.key] = replace(
            place, source=DeadlySource(place.source, deadly, self.graves, self.n_deaths)
        )


class BrokenSource:
    """Every read fails, as on a machine whose memory or driver is broken."""

    def __init__(self, source: Source) -> None:
        self.spec = source.spec

    def read(self, box: Box, on_hole: OnHole = unheard) -> Voxels:
        raise RuntimeError("this machine is broken")


@dataclass(frozen=True)
class OddWorkplace(WorkerContextPlugin):
    """Opens the workplace; the first worker that comes, which `claim` names, reads from another source."""

    claim: Path

    def setup(self, worker: Worker) -> None:
        super().setup(worker)
        try:
            self.claim.touch(exist_ok=False)
        except FileExistsError:
            return
        self.claim.write_text(worker.address)
        place = workers._PLACES[self.key]
        workers._PLACES[self.key] = replace(place, source=self.odd(place.source))

    def odd(self, source: Source) -> Source:
        return BrokenSource(source)


@dataclass(frozen=True)
class SlowWorkplace(OddWorkplace):
    """There, each read takes `delay_s`."""

    delay_s: float = 60.0

    def odd(self, source: Source) -> Source:
        return SlowSource(source, self.delay_s)
