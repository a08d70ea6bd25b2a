"""Volumes of which only the voxels matter, whatever their voxel size is."""

from __future__ import annotations

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.storage.catalogue import source_address
from vemdiffuse_pipe.storage.grey import Window
from vemdiffuse_pipe.storage.source import find_volume, open_source
from vemdiffuse_pipe.volume import Source

UNSTATED_NM = 1  # voxel size of a volume that states none


def open_unsized(url: str, window: Window | None = None) -> Source:
    """The volume at `url`, with voxels of 1 nm where its metadata states no voxel size.

    `window`: for voxels that are not uint8; it is not used for uint8. Raises SourceError where there is no
    volume, and for other voxels without a window.
    """
    levels = find_volume(source_address(url)).levels
    voxel_size_nm = None if all(level.is_in_nm for level in levels) else (UNSTATED_NM,) * 3
    try:
        return open_source(url, voxel_size_nm=voxel_size_nm)
    except SourceError:  # not of uint8, perhaps
        if window is None:
            raise
        return open_source(url, voxel_size_nm=voxel_size_nm, window=window)
