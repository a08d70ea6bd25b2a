"""What matching the spectrum of measured sections does to planes with lines: vEMDiffuse-a, one sample.

    python benchmarks/spectrum.py DATA CHECKPOINT [--ratio 5]

DATA holds volume_a_raw.tif; the part is the one of workflows/compare_fib25.toml, sections dropped. Every
generated plane is filtered so that the mean power of each frequency (y, x) is that of the sections; both
powers are smoothed over neighbouring frequencies, and no phase is changed.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vemdiffuse_pipe.comparison.compare import read_truth
from vemdiffuse_pipe.comparison.file import TruthTable
from vemdiffuse_pipe.comparison.in_memory import reconstruct_in_memory
from vemdiffuse_pipe.config import ModelTable
from vemdiffuse_pipe.evaluation import Report, evaluate
from vemdiffuse_pipe.evaluation.degradation import degrade
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.volume import Voxels

SMOOTH = 2.0  # deviation, in frequencies
COLUMNS = ("planes", "PSNR", "FSIM xy", "FSIM xz", "FSIM yz", "HF x", "HF y", "HF z", "flicker")


def power(planes: Voxels) -> NDArray[np.float64]:
    """Mean power of each frequency: (y, x), smoothed."""
    spectra = np.abs(np.fft.fft2(planes.astype(np.float64), axes=(1, 2))) ** 2
    return ndimage.gaussian_filter(spectra.mean(axis=0), SMOOTH, mode="wrap")


def matched(planes: Voxels, sections: Voxels) -> Voxels:
    """The planes with the power of the sections, frequency by frequency; the mean grey level stays."""
    gain = np.sqrt(power(sections) / power(planes))
    gain[0, 0] = 1.0
    filtered = np.fft.ifft2(np.fft.fft2(planes.astype(np.float64), axes=(1, 2)) * gain, axes=(1, 2)).real
    return to_grey(filtered.astype(np.float32))


def cells(name: str, r: Report) -> str:
    fsim = (f"{v:.4f}" for v in (r.fsim_xy, r.fsim_xz, r.fsim_yz))
    others = (f"{v:.2f}" for v in (r.hf_x, r.hf_y, r.hf_z, r.flicker))
    return f"| {' | '.join((name, f'{r.psnr:.2f}', *fsim, *others))} |"


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("checkpoint")
@click.option("--ratio", default=5, show_default=True)
def main(data: Path, checkpoint: str, ratio: int) -> None:
    """Print a row as drawn and one as matched."""
    part = TruthTable(
        url=str(data / "volume_a_raw.tif"), voxel_size_nm=(10, 10, 10), planes=(220, 281), middle_px=192
    )
    degraded = degrade(read_truth(part), ratio, "dropped")
    table = ModelTable(name=checkpoint, ratio=ratio, samples=1, precision="bfloat16")
    drawn = reconstruct_in_memory(degraded.sections, table).arrays["em"]
    filtered = drawn.copy()
    filtered[degraded.generated] = matched(drawn[degraded.generated], degraded.sections)
    click.echo(f"| {' | '.join(COLUMNS)} |\n{'| --- ' * len(COLUMNS)}|")
    for name, volume in (("as drawn", drawn), ("spectrum of the sections", filtered)):
        click.echo(cells(name, evaluate(volume, degraded.truth, planes=degraded.generated)))


if __name__ == "__main__":
    main()
