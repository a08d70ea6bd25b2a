"""A workplace whose source ends the process when a certain block is read."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from distributed import Worker

from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.running import workers
from vemdiffuse_pipe.running.workers import OpenWorkplace
from vemdiffuse_pipe.volume import OnHole, Source, VolumeSpec, Voxels, unheard


class DeadlySource:
    """Reading `deadly` ends the process at once, as a crash would."""

    def __init__(self, source: Source, deadly: Box) -> None:
        self._source, self._deadly = source, deadly

    @property
    def spec(self) -> VolumeSpec:
        return self._source.spec

    def read(self, box: Box, on_hole: OnHole = unheard) -> Voxels:
        if box == self._deadly:
            os._exit(1)
        return self._source.read(box, on_hole)


@dataclass(frozen=True)
class KillingWorkplace(OpenWorkplace):
    """Opens the workplace, and makes one block deadly."""

    deadly_block: int = 0

    def setup(self, worker: Worker) -> None:
        super().setup(worker)
        place = workers._PLACES[self.key]
        deadly = self.plan.source_box(self.plan.blocks.box(self.deadly_block))
        workers._PLACES[self.key] = replace(place, source=DeadlySource(place.source, deadly))
