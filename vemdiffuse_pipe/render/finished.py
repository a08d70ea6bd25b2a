"""Finished planes on their way into the block's arrays: grey levels as uint8, and nothing else leaves a GPU.

planes (float32, GPU) --> uint8 (GPU) --copied while the next tiles compute--> pinned buffer --> block
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from vemdiffuse_pipe.geometry.grey import HALF_AND_A_BIT, check_finite, to_grey
from vemdiffuse_pipe.volume import Voxels

MAX_UNDER_WAY = 4  # copies: of mean and spread of two tiles

Where = tuple[slice, slice, slice]


class FinishedPlanes(Protocol):
    """Where finished planes go."""

    def put(self, name: str, where: Where, planes: Tensor) -> None:
        """Store `planes`, (planes, y, x) float32 grey levels on the device, at `where` of an array.

        Raises DataError, now or later, where they are not finite.
        """
        ...

    def close(self) -> None:
        """Returns when all that was put is stored. Raises DataError."""
        ...


class HostPlanes:
    """Of a CPU: they are where they belong already."""

    def __init__(self, arrays: Mapping[str, Voxels]) -> None:
        self._arrays = arrays

    def put(self, name: str, where: Where, planes: Tensor) -> None:
        """Store them."""
        to_grey(planes.numpy(), out=self._arrays[name][where])

    def close(self) -> None:
        """All is stored."""


class _Copy(NamedTuple):
    """Planes and their lowest and highest value in pinned buffers, once `copied`."""

    target: Voxels
    planes: Tensor
    extremes: Tensor
    copied: torch.cuda.Event


class DevicePlanes:
    """Of a GPU: copied by a stream of their own, a few at a time."""

    def __init__(self, arrays: Mapping[str, Voxels], device: torch.device) -> None:
        self._arrays = arrays
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._under_way: deque[_Copy] = deque()

    def put(self, name: str, where: Where, planes: Tensor) -> None:
        """Begin to copy them; wait for the oldest of those under way where there are too many."""
        grey, extremes = on_device_to_grey(planes)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            host, host_extremes = (_to_pinned(tensor, self._stream) for tensor in (grey, extremes))
            copied = torch.cuda.Event()
            copied.record(self._stream)
        self._under_way.append(_Copy(self._arrays[name][where], host, host_extremes, copied))
        if len(self._under_way) > MAX_UNDER_WAY:
            self._store_oldest()

    def close(self) -> None:
        """Wait for all of them."""
        while self._under_way:
            self._store_oldest()

    def _store_oldest(self) -> None:
        copy = self._under_way.popleft()
        copy.copied.synchronize()
        low, high = copy.extremes.tolist()
        check_finite(low, high)
        copy.target[...] = copy.planes.numpy()


def on_device_to_grey(planes: Tensor) -> tuple[Tensor, Tensor]:
    """What `geometry.grey.to_grey` does, where `planes` are: uint8 of the same shape, and (2,) float32: the
    lowest and the highest value, which whoever waits for the device has to check.
    """
    extremes = torch.stack(planes.aminmax())
    return planes.clamp(0, 255).add_(HALF_AND_A_BIT).to(torch.uint8), extremes


def _to_pinned(tensor: Tensor, stream: torch.cuda.Stream) -> Tensor:
    tensor.record_stream(stream)  # its memory is not given to others before the copy
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
