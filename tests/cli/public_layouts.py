"""Small volumes laid out as the public ones are: keys, levels, axes, units, offsets and encodings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorstore as ts
import tifffile
import zarr

from vemdiffuse_pipe.testing import position_coded

Zyx = tuple[int, int, int]
SHAPE = (6, 40, 56)

OFFSET = (7, 30, 26)  # of the precomputed volumes, in voxels of the finest level, zyx
SHARDING = {
    "@type": "neuroglancer_uint64_sharded_v1",
    "preshift_bits": 1,
    "minishard_bits": 1,
    "shard_bits": 1,
    "hash": "identity",
    "minishard_index_encoding": "gzip",
    "data_encoding": "raw",
}


def voxels_of(level: int, factors: Zyx = (2, 2, 2)) -> np.ndarray:
    """Voxels of a level, which hold their flat index: another image at each level."""
    z, y, x = (max(1, n // f**level) for n, f in zip(SHAPE, factors, strict=True))
    return position_coded((z, y, x))


def smooth_voxels(level: int, factors: Zyx) -> np.ndarray:
    """Voxels that a jpeg keeps roughly."""
    shape = voxels_of(level, factors).shape
    z, y, x = np.meshgrid(*map(np.arange, shape), indexing="ij")
    return np.rint(128 + 60 * np.sin(z + y / 9) * np.cos(x / 7 + level)).astype(np.uint8)


def openorganelle_zarr(container: Path) -> None:
    """NAME.zarr/recon-1/em/fibsem-uint8: OME-Zarr 0.4, levels s0, s1, s2, centres in nanometres."""
    zarr.open_group(container, mode="w", zarr_format=2)
    zarr.open_group(container / "recon-1", mode="w", zarr_format=2)
    zarr.open_group(container / "recon-1" / "em", mode="w", zarr_format=2)
    group = zarr.open_group(container / "recon-1" / "em" / "fibsem-uint8", mode="w", zarr_format=2)
    datasets = []
    for level in range(3):
        voxels = voxels_of(level)
        array = group.create_array(
            f"s{level}",
            shape=voxels.shape,
            chunks=(16, 16, 16),
            dtype="uint8",
            chunk_key_encoding={"name": "v2", "separator": "/"},
            config={"write_empty_chunks": True},
        )
        array[...] = voxels
        scale = {"type": "scale", "scale": [8.0 * 2**level] * 3}
        centre = {"type": "translation", "translation": [8.0 * (2**level - 1) / 2] * 3}
        datasets.append({"path": f"s{level}", "coordinateTransformations": [scale, centre]})
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    whole = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    image = {"name": "", "version": "0.4", "axes": axes, "datasets": datasets}
    group.attrs["multiscales"] = [{**image, "coordinateTransformations": whole}]


def openorganelle_n5(container: Path) -> None:
    """NAME.n5/em/fibsem-uint8: N5 with COSEM's transforms, in the group and in every level."""
    group = container / "em" / "fibsem-uint8"
    datasets = []
    for level in range(3):
        voxels, size = voxels_of(level), 8.0 * 2**level
        metadata = {
            "dimensions": voxels.shape[::-1],
            "blockSize": (16, 16, 16),
            "dataType": "uint8",
            "compression": {"type": "gzip"},
        }
        _store("n5", group / f"s{level}", voxels.T, metadata=metadata)
        transform = {
            "axes": ["z", "y", "x"],
            "scale": [size] * 3,
            "translate": [(size - 8) / 2] * 3,
            "units": ["nm"] * 3,
        }
        attributes = json.loads((group / f"s{level}" / "attributes.json").read_text())
        resolution = {"dimensions": [size] * 3, "unit": "nm"}
        _json(
            group / f"s{level}" / "attributes.json",
            {**attributes, "pixelResolution": resolution, "transform": transform},
        )
        datasets.append({"path": f"s{level}", "transform": transform})
    _json(container / "attributes.json", {"n5": "2.0.0"})
    resolution = {"dimensions": [8.0] * 3, "unit": "nm"}
    scales = [[2**level] * 3 for level in range(3)]
    multiscales = [{"name": "fibsem-uint8", "datasets": datasets}]
    _json(
        group / "attributes.json",
        {"multiscales": multiscales, "pixelResolution": resolution, "scales": scales},
    )


def precomputed(folder: Path, sizes_nm: Sequence[Sequence[float]], **scale: object) -> None:
    """Precomputed jpeg with a scale for each size, zyx, and its first voxel away from the origin."""
    first = np.array(sizes_nm[0])
    for level, size in enumerate(sizes_nm):
        factors = np.array(size) / first
        voxels = smooth_voxels(1, tuple(int(f) for f in factors))
        xyz = [int(s) if float(s).is_integer() else s for s in size[::-1]]
        _store(
            "neuroglancer_precomputed",
            folder,
            voxels.T[..., None],
            multiscale_metadata={"type": "image", "data_type": "uint8", "num_channels": 1},
            scale_metadata={
                "key": "_".join(map(str, xyz)),
                "size": voxels.shape[::-1],
                "chunk_size": (16, 16, 16),
                "resolution": xyz,
                "voxel_offset": [int(o // f) for o, f in zip(OFFSET[::-1], factors[::-1], strict=True)],
                "encoding": "jpeg",
                "jpeg_quality": 90,
                **scale,
            },
        )
        assert level == len(json.loads((folder / "info").read_text())["scales"]) - 1


MICRONS = [(40, 8, 8), (40, 16, 16), (40, 32, 32), (80, 64, 64)]
FANC = [(45, 4.3, 4.3), (45, 8.6, 8.6), (45, 17.2, 17.2)]
MANC = [(8, 8, 8), (16, 16, 16)]


def tiff(path: Path) -> None:
    """One file, a page a section; no voxel size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, voxels_of(0), photometric="minisblack", metadata=None)


def stored_by_tensorstore(driver: str, path: Path, **spec: object) -> np.ndarray:
    """What tensorstore finds in the files of the finest level, zyx."""
    array = ts.open({"driver": driver, "kvstore": {"driver": "file", "path": f"{path}/"}, **spec}).result()
    voxels = array[ts.d[:].translate_to[0]].read().result()
    return {"zarr": lambda v: v, "n5": lambda v: v.T, "neuroglancer_precomputed": lambda v: v[..., 0].T}[
        driver
    ](voxels)


def _store(driver: str, path: Path, values: np.ndarray, **metadata: object) -> None:
    kvstore = {"driver": "file", "path": f"{path}/"}
    spec = {"driver": driver, "kvstore": kvstore, "store_data_equal_to_fill_value": True, **metadata}
    array = ts.open(spec, create=True, open=True).result()
    array[ts.d[:].translate_to[0]].write(values).result()


def _json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))
