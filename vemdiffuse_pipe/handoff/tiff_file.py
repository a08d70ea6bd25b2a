"""A TIFF that is written in any order: uncompressed, laid out once, then filled block by block.

one file        < 4 GB: an ImageJ stack, which Fiji opens by itself, in nm
                else:   BigTIFF with OME metadata, which Fiji opens by Bio-Formats, in nm
sections        a folder of z0000.tif, z0001.tif, ...: one file a plane, each an ImageJ image
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import CorruptDataError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.storage import faults
from vemdiffuse_pipe.volume import Voxels

MAX_IMAGEJ_BYTES = (1 << 32) - (1 << 25)  # offsets are 32 bits, and metadata need room
SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class TiffFile:
    """A volume as one TIFF, or as a folder with one TIFF a plane."""

    path: Path
    """The file, or the folder where it has no TIFF suffix."""
    frame: Frame
    """Where the voxels lie. The corner is only in OME metadata: an ImageJ stack has no place for it."""

    @property
    def is_folder(self) -> bool:
        """True for a folder of sections."""
        return self.path.suffix.lower() not in SUFFIXES

    def create(self) -> None:
        """Lay out the files, all voxels 0, unless they are there. Raises OutputError, StorageFullError."""
        with faults.writing(str(self.path)):
            if not self.is_folder:
                self._create(self.path, self.frame.shape)
                return
            self.path.mkdir(parents=True, exist_ok=True)
            for plane in range(self.frame.shape[0]):
                self._create(self._section(plane), self.frame.shape[1:])

    def write(self, box: Box, voxels: NDArray[np.generic]) -> None:
        """Write the voxels of `box` in place, durably. Raises OutputError, StorageFullError."""
        with faults.writing(f"{box} of {self.path}"):
            for (pixels, slices), part in self._parts(box, voxels):
                pixels[slices] = part
                pixels.flush()

    def read(self, box: Box) -> Voxels:
        """What is stored: uint8, zyx. Raises CorruptDataError where the file is not one of ours."""
        voxels = np.empty(box.shape, np.uint8)
        for (pixels, slices), part in self._parts(box, voxels):
            part[...] = pixels[slices]
        return voxels

    def _parts(
        self, box: Box, voxels: NDArray[np.generic]
    ) -> list[tuple[tuple[np.memmap, tuple[slice, ...]], NDArray[np.generic]]]:
        """For each file that `box` touches: its pixels, where in them, and the part of `voxels` for it."""
        if not self.is_folder:
            return [((self._pixels(self.path, self.frame.shape), box.slices), voxels)]
        yx = box.slices[1:]
        planes = range(box.start[0], box.stop[0])
        return [
            ((self._pixels(self._section(p), self.frame.shape[1:]), yx), voxels[p - box.start[0]])
            for p in planes
        ]

    def _section(self, plane: int) -> Path:
        digits = max(4, len(str(self.frame.shape[0] - 1)))
        return self.path / f"z{plane:0{digits}}.tif"

    def _create(self, path: Path, shape: tuple[int, ...]) -> None:
        import tifffile

        if path.exists():
            return
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
        path.parent.mkdir(parents=True, exist_ok=True)
        n_bytes = int(np.prod(shape))
        dz, dy, dx = (float(size) for size in self.frame.voxel_size_nm)
        pixels_per_nm = (1 / dx, 1 / dy)
        if n_bytes <= MAX_IMAGEJ_BYTES:
            axes = "ZYX"[-len(shape) :]
            metadata = {"axes": axes, "spacing": dz, "unit": "nm"}
            pixels = tifffile.memmap(
                unfinished,
                shape=shape,
                dtype=np.uint8,
                imagej=True,
                resolution=pixels_per_nm,
                metadata=metadata,
            )
        else:
            place = {
                f"Position{a}": [float(c)] * shape[0]
                for a, c in zip("ZYX", self.frame.centre_nm, strict=True)
            }
            units = {f"Position{a}Unit": ["nm"] * shape[0] for a in "ZYX"}
            sizes = {f"PhysicalSize{a}": size for a, size in zip("ZYX", (dz, dy, dx), strict=True)}
            physical = {**sizes, **{f"PhysicalSize{a}Unit": "nm" for a in "ZYX"}}
            metadata = {"axes": "ZYX", **physical, "Plane": {**place, **units}}
            pixels = tifffile.memmap(
                unfinished, shape=shape, dtype=np.uint8, bigtiff=True, ome=True, metadata=metadata
            )
        pixels.flush()
        del pixels
        unfinished.replace(path)

    def _pixels(self, path: Path, shape: tuple[int, ...]) -> np.memmap:
        import tifffile

        pixels = tifffile.memmap(path, mode="r+")
        if pixels.shape != shape or pixels.dtype != np.uint8:
            raise CorruptDataError(
                f"{path} holds {pixels.shape} {pixels.dtype}, where {shape} uint8 is being written; "
                "something else changed it: remove it, and export again"
            )
        return pixels
