"""Jobs whose source ends the process when a certain block is read, takes its time, or always fails."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from distributed import get_worker

from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.records.events import Listener
from vemdiffuse_pipe.running.render_job import RenderJob, RenderStages
from vemdiffuse_pipe.testing import SlowSource
from vemdiffuse_pipe.volume import OnHole, Source, VolumeSpec, Voxels, ignore_hole


class DeadlySource:
    """Reading `deadly` ends the process at once, as a crash would, until `n_crashes` have left a file."""

    def __init__(self, source: Source, deadly: Box, crashes: Path, n_crashes: int) -> None:
        self._source, self._deadly = source, deadly
        self._crashes, self._n_crashes = crashes, n_crashes

    @property
    def spec(self) -> VolumeSpec:
        return self._source.spec

    def read(self, box: Box, on_hole: OnHole = ignore_hole) -> Voxels:
        if box == self._deadly and len(list(self._crashes.iterdir())) < self._n_crashes:
            (self._crashes / str(os.getpid())).touch()
            os._exit(1)
        return self._source.read(box, on_hole)


@dataclass(frozen=True)
class CrashingJob(RenderJob):
    """One of its blocks crashes whoever reads it."""

    crashes: Path = Path()
    deadly_block: int = 0
    n_crashes: int = 1000

    def open(self, emit: Listener) -> RenderStages:
        stages = super().open(emit)
        deadly = self.plan.source_box(self.plan.blocks.box(self.deadly_block))
        source = DeadlySource(stages.source, deadly, self.crashes, self.n_crashes)
        return replace(stages, source=source)


class BrokenSource:
    """Every read fails, as on a machine whose memory or driver is broken."""

    def __init__(self, source: Source) -> None:
        self.spec = source.spec

    def read(self, box: Box, on_hole: OnHole = ignore_hole) -> Voxels:
        raise RuntimeError("this machine is broken")


class ClaimedSource:
    """The first worker that reads claims `odd`, and writes its address to `claim`; others read `source`."""

    def __init__(self, source: Source, odd: Source, claim: Path) -> None:
        self.spec = source.spec
        self._source, self._odd, self._claim = source, odd, claim
        self._lock, self._chosen = Lock(), source
        self._is_first = True

    def read(self, box: Box, on_hole: OnHole = ignore_hole) -> Voxels:
        with self._lock:
            if self._is_first:
                self._is_first = False
                with suppress(FileExistsError):
                    self._claim.touch(exist_ok=False)
                    self._claim.write_text(get_worker().address)
                    self._chosen = self._odd
        return self._chosen.read(box, on_hole)


@dataclass(frozen=True)
class OneBrokenWorkerJob(RenderJob):
    """On the first worker that reads, which `claim` names, every read fails."""

    claim: Path = Path()

    def open(self, emit: Listener) -> RenderStages:
        stages = super().open(emit)
        return replace(stages, source=ClaimedSource(stages.source, self.odd(stages.source), self.claim))

    def odd(self, source: Source) -> Source:
        return BrokenSource(source)


@dataclass(frozen=True)
class OneSlowWorkerJob(OneBrokenWorkerJob):
    """There, each read takes `delay_s`."""

    delay_s: float = 60.0

    def odd(self, source: Source) -> Source:
        return SlowSource(source, self.delay_s)


@dataclass(frozen=True)
class SlowJob(RenderJob):
    """Takes a moment for each read."""

    def open(self, emit: Listener) -> RenderStages:
        stages = super().open(emit)
        return replace(stages, source=SlowSource(stages.source, 0.2))
