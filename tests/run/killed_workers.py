"""Workplaces whose source ends the process when a certain block is read, or takes its time."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from distributed import Worker

from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.running import workers
from vemdiffuse_pipe.running.workers import OpenWorkplace
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
class KillingWorkplace(OpenWorkplace):
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


@dataclass(frozen=True)
class SlowWorkplace(OpenWorkplace):
    """Opens the workplace; in the first worker that comes, each read takes `delay_s`."""

    claim: Path
    delay_s: float

    def setup(self, worker: Worker) -> None:
        super().setup(worker)
        try:
            self.claim.touch(exist_ok=False)
        except FileExistsError:
            return
        self.claim.write_text(worker.address)
        place = workers._PLACES[self.key]
        workers._PLACES[self.key] = replace(place, source=SlowSource(place.source, self.delay_s))
