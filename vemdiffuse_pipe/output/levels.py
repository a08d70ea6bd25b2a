"""The coarse levels of an output's images: how each is identified, and where its receipts lie."""

from __future__ import annotations

from typing import Literal

from vemdiffuse_pipe.output.run_output import RunOutput
from vemdiffuse_pipe.plan.plan import digest
from vemdiffuse_pipe.records.folder import records_of_job
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.image_levels import ImageLevels

Method = Literal["mean", "maximum", "mode"]
METHODS: dict[str, Method] = {
    "em": "mean",
    "sample": "mean",
    "uncertainty": "maximum",
    "sample_spread": "maximum",
}
FORMATS = ("ome-zarr 0.5", "ome-zarr 0.4")
VERSION = 1  # of the arithmetic: another one makes other voxels


def method_of(array: str) -> Method:
    """How the array of that name is made coarser: labels and flags, and all that is not known, by mode."""
    return METHODS.get(array, "mode")


def takes_levels(run: RunOutput) -> bool:
    """True for an output in a format whose images get more levels in place."""
    return run.sink.spec.format in FORMATS


def level_digest(made_from: str, array: str, level: int) -> str:
    """The digest of a level: of what is in level 0, of the array, the level and the arithmetic."""
    return digest(
        {
            "made_from": made_from,
            "array": array,
            "level": level,
            "method": method_of(array),
            "downsample_version": VERSION,
        }
    )


def level_records(run: RunOutput, array: str, level: int) -> Address:
    """The folder of receipts and events of the job that makes a level."""
    return records_of_job(run.address, f"{array}-{level}")


def image_of(run: RunOutput, array: str) -> ImageLevels:
    """The image of an array whose output takes levels."""
    spec = run.sink.spec
    return ImageLevels(
        address=run.address / array,
        own_folder=run.records,
        name=array,
        output_format="ome-zarr-0.5" if spec.format == "ome-zarr 0.5" else "ome-zarr-0.4",
        frame=spec.frame,
        chunk_shape=spec.chunk_shape,
        shard_shape=spec.shard_shape,
    )
