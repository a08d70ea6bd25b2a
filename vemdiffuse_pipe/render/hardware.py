"""Where rendering is done, how many tiles at once, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock
from typing import Literal

import torch
from torch import Tensor

from vemdiffuse_pipe.config import Json
from vemdiffuse_pipe.models.device import device_here
from vemdiffuse_pipe.plan.estimate import tile_bytes, tiles_at_once
from vemdiffuse_pipe.plan.plan import Plan

MAX_TILES = 4096
SHARE_OF_FREE_MEMORY = 0.9  # the rest is for what the allocator cannot give out in one piece


@dataclass(slots=True)
class TileLimit:
    """Tiles that have room in the device's memory, as far as is known. Halved where memory ran out."""

    n_tiles: int = MAX_TILES

    def halve(self, n_tiles: int) -> None:
        """Note that `n_tiles` had no room."""
        self.n_tiles = min(self.n_tiles, max(1, n_tiles // 2))


@dataclass(frozen=True, slots=True)
class Hardware:
    """Where and how wide to compute; nothing here changes a voxel on a CPU.

    `n_threads`: tiles rendered at once on a CPU. `tile_batch`: tiles in one call of the model; "auto": one on
    a CPU, on a GPU what the plan counts on, or fewer where its free memory has no room for them. `limit`:
    what is known of that, as long as the process lasts.
    """

    device: str = "cpu"
    n_threads: int = 1
    tile_batch: int | Literal["auto"] = "auto"
    limit: TileLimit = field(default_factory=TileLimit, compare=False)

    @property
    def torch_device(self) -> torch.device:
        """The device in this process, which "auto" leaves open."""
        return torch.device(device_here(self.device))

    @property
    def is_gpu(self) -> bool:
        """True where work is queued on a device of its own, while this process goes on."""
        return self.torch_device.type == "cuda"

    def tiles_at_once(self, plan: Plan) -> int:
        """Tiles for the next call of the model, at least one."""
        wanted = tiles_at_once(plan) if self.tile_batch == "auto" else self.tile_batch
        if self.tile_batch == "auto" and self.is_gpu:
            wanted = min(wanted, int(SHARE_OF_FREE_MEMORY * free_bytes(self.torch_device) / tile_bytes(plan)))
        return max(1, min(wanted, self.limit.n_tiles))


class RenderCounts:
    """What was rendered of a block, counted by several threads.

    `n_voxels`: of all tiles, with their halos, and of all samples. `tile_batch`: the most tiles in one call.
    `n_out_of_memory`: calls that were repeated in halves.
    """

    def __init__(self) -> None:
        self.n_voxels, self.tile_batch, self.n_out_of_memory = 0, 0, 0
        self._lock = Lock()

    def add_call(self, planes: Tensor) -> None:
        """Count what one call of the model made: (tiles, planes, y, x)."""
        with self._lock:
            self.n_voxels += planes.numel()
            self.tile_batch = max(self.tile_batch, len(planes))

    def add_out_of_memory(self) -> None:
        """Count a call that has to be repeated in halves."""
        with self._lock:
            self.n_out_of_memory += 1

    def as_notes(self, capture_state: str = "") -> dict[str, Json]:
        """What a receipt says of rendering. `capture_state`: how the network was called, if not as it is."""
        return {
            "n_voxels_rendered": self.n_voxels,
            "tile_batch": self.tile_batch,
            **({"n_out_of_memory": self.n_out_of_memory} if self.n_out_of_memory else {}),
            **({"network": capture_state} if capture_state else {}),
        }


def free_bytes(device: torch.device) -> int:
    """Bytes of a GPU that this process can still have: free ones, and those its allocator keeps unused."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
