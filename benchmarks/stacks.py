"""What reading files costs: TIFF, MRC and HDF5 through us, and through the library alone.

    python benchmarks/stacks.py [--repeats 5]

128 x 1024 x 1024 voxels in boxes of 64 x 512 x 512, as in reading.py. The library decodes each section once
(of HDF5 each box) and boxes are cut out of them. MB per second of CPU, the best of the repeats.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import click
import h5py
import mrcfile
import numpy as np
import tifffile
from copying import em_like
from figures import commit, device
from reading import BOXES, NM, SHAPE

from vemdiffuse_pipe.storage import open_source
from vemdiffuse_pipe.volume import Voxels

CHUNKS = (16, 256, 256)


@click.command()
@click.option("--repeats", default=5, show_default=True)
def main(repeats: int) -> None:
    """Print the table of reading files."""
    print(f"{device()}, {time.strftime('%Y-%m-%d')}, commit {commit()}\n")
    print("| format | open_source | of the library alone |\n| --- | --- | --- |")
    voxels = em_like(SHAPE)
    with tempfile.TemporaryDirectory() as folder:
        for name, (write, bare) in WAYS.items():
            path = Path(folder) / name.replace(", ", ".")
            write(path, voxels)
            best = [float("inf"), float("inf")]
            for _ in range(repeats):
                best = [min(s, cpu_s(read, path)) for s, read in zip(best, (read_ours, bare), strict=True)]
            ours, alone = (voxels.size / 1e6 / s for s in best)
            print(f"| {name} | {ours:.0f} MB/s | {ours / alone:.2f} ({alone:.0f}) |")


def cpu_s(read: Callable[[Path], None], path: Path) -> float:
    begun = time.process_time()
    read(path)
    return time.process_time() - begun


def write_tiff(path: Path, voxels: Voxels, **options: object) -> None:
    tifffile.imwrite(path, voxels, photometric="minisblack", metadata=None, **options)


def write_ome(path: Path, voxels: Voxels) -> None:
    tifffile.imwrite(path, voxels, ome=True, metadata={"axes": "ZYX"}, compression="zlib")


def write_folder(path: Path, voxels: Voxels) -> None:
    path.mkdir()
    for z, section in enumerate(voxels):
        write_tiff(path / f"s_{z:03}.tif", section)


def write_mrc(path: Path, voxels: Voxels) -> None:
    """Unsigned bytes, by IMOD's stamp."""
    with warnings.catch_warnings(), mrcfile.new(path) as file:
        warnings.simplefilter("ignore")
        file.set_data(voxels.view(np.int8))
    with path.open("r+b") as file:
        file.seek(152)
        file.write(np.array([1146047817, 0], "<i4").tobytes())


def write_hdf5(path: Path, voxels: Voxels) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=voxels, chunks=CHUNKS, compression="gzip", compression_opts=1)


def read_ours(path: Path) -> None:
    opened = open_source(path, voxel_size_nm=NM)
    for box in BOXES:
        opened.read(box)


def cut(sections: Sequence[Voxels]) -> None:
    for box in BOXES:
        z, y, x = box.slices
        np.stack([section[y, x] for section in sections[z]])


def tiff_alone(path: Path) -> None:
    with tifffile.TiffFile(path, is_ome=False) as file:
        cut([page.asarray() for page in file.pages])


def folder_alone(path: Path) -> None:
    cut([tifffile.imread(file) for file in sorted(path.iterdir())])


def mrc_alone(path: Path) -> None:
    with mrcfile.open(path, permissive=True) as file:
        cut(list(file.data))


def hdf5_alone(path: Path) -> None:
    with h5py.File(path) as file:
        for box in BOXES:
            np.asarray(file["raw"][box.slices])


WAYS: dict[str, tuple[Callable[[Path, Voxels], None], Callable[[Path], None]]] = {
    "TIFF, raw": (write_tiff, tiff_alone),
    "TIFF, deflate": (partial(write_tiff, compression="zlib"), tiff_alone),
    "OME-TIFF, deflate": (write_ome, tiff_alone),
    "folder of TIFF, raw": (write_folder, folder_alone),
    "MRC": (write_mrc, mrc_alone),
    "HDF5, gzip": (write_hdf5, hdf5_alone),
}

if __name__ == "__main__":
    sys.exit(main())
