"""How chunks of precomputed images are encoded: z y x voxels to the bytes of one chunk.

raw                       as they are, x fastest
png, jpeg                 one image: x along its width, y and z down its height; uint8
compressed_segmentation   labels in blocks of 8 x 8 x 8: uint32, uint64
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Encoding = Literal["raw", "jpeg", "png", "compressed_segmentation"]
Encode = Callable[[NDArray[np.generic]], bytes]

JPEG_QUALITY = 90
LABEL_BLOCK = (8, 8, 8)


def encoder(encoding: Encoding, dtype: str) -> Encode:
    """The function that encodes a chunk, zyx, of that type."""
    match encoding:
        case "jpeg":
            return _jpeg
        case "png":
            return _png
        case "compressed_segmentation":
            return _labels
        case _:
            return lambda voxels: np.ascontiguousarray(voxels, np.dtype(dtype).newbyteorder("<")).tobytes()


def _as_image(voxels: NDArray[np.generic]) -> NDArray[np.generic]:
    z, y, x = voxels.shape
    return np.ascontiguousarray(voxels).reshape(z * y, x)


def _jpeg(voxels: NDArray[np.generic]) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.jpeg_encode(_as_image(voxels), level=JPEG_QUALITY))


def _png(voxels: NDArray[np.generic]) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.png_encode(_as_image(voxels)))


def _labels(voxels: NDArray[np.generic]) -> bytes:
    import compressed_segmentation

    xyz = np.asfortranarray(voxels.T)
    return bytes(compressed_segmentation.compress(xyz, block_size=LABEL_BLOCK, order="F"))
