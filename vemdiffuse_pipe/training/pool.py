"""The slabs that are in memory: read in the background, in the order of their schedule, and dropped again."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

from vemdiffuse_pipe.errors import CorruptDataError, MissingDataError
from vemdiffuse_pipe.training.slabs import Slab, SlabSchedule, coarser, decoded_bytes
from vemdiffuse_pipe.volume import Voxels

AHEAD = 2  # slabs that are read before they are needed
ATTEMPTS = 16  # other slabs that are tried in place of one with a hole


@dataclass(frozen=True, slots=True)
class HeldSlab:
    """A slab, its voxels, and those of the raw volume if there is one. `n_bytes`: what was decoded for it."""

    slab: Slab
    voxels: Voxels
    n_bytes: int
    raw: Voxels | None = None


class SlabPool:
    """A moving window of slabs; close it, or use it in a `with`, to end its reader.

    Memory: (schedule.pool + 2) slabs at most, and one that is being read.
    """

    def __init__(self, schedule: SlabSchedule) -> None:
        self.schedule = schedule
        self.bytes_read = 0
        self._reader = ThreadPoolExecutor(1, "slabs")
        self._slabs: dict[int, Future[HeldSlab]] = {}
        self._counted: set[int] = set()
        self._window = range(0)

    def __enter__(self) -> SlabPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the reader; what it is reading is waited for."""
        self._reader.shutdown(cancel_futures=True)

    def move_to(self, window: range) -> None:
        """Drop what lies before `window`, and have all of it read, and a little more."""
        if window == self._window:
            return
        self._window = window
        for number in [n for n in self._slabs if n not in range(window.start, window.stop + AHEAD)]:
            self._slabs.pop(number).cancel()
            self._counted.discard(number)
        for number in range(window.start, window.stop + AHEAD):
            if number not in self._slabs:
                self._slabs[number] = self._reader.submit(self._read, number)

    def get(self, number: int) -> HeldSlab:
        """A slab of the window, when it is there. Raises what reading it raised."""
        held = self._slabs[number].result()
        if number not in self._counted:
            self._counted.add(number)
            self.bytes_read += held.n_bytes
        return held

    def _read(self, number: int) -> HeldSlab:
        """The slab, or another one where a chunk is absent or cannot be decoded: the same at each try."""
        n_bytes = 0
        for attempt in range(ATTEMPTS):
            slab = self.schedule.slab(number, attempt)
            volume = self.schedule.volumes[slab.volume]
            n_bytes += decoded_bytes(volume.source, slab.box)
            try:
                voxels, raw = volume.source.read(slab.box), None
                if volume.raw is not None:
                    box = coarser(slab.box, self.schedule.cut.align)
                    n_bytes += decoded_bytes(volume.raw, box)
                    raw = volume.raw.read(box)
                return HeldSlab(slab, voxels, n_bytes, raw)
            except (MissingDataError, CorruptDataError) as error:
                last = error
        raise last
