"""vemdiffuse datasets: public volumes that can be opened by name."""

from __future__ import annotations

import click

from vemdiffuse_pipe.cli.format import show_ratio
from vemdiffuse_pipe.cli.options import json_option, print_json, print_table
from vemdiffuse_pipe.geometry.frame import show_nm
from vemdiffuse_pipe.plan.planes import exact_ratio
from vemdiffuse_pipe.storage.catalogue import Dataset, datasets


@click.command("datasets")
@json_option
def command(as_json: bool) -> None:
    """List public volumes that are opened by name.

    A name stands for an address wherever a volume is read: in `inspect NAME`, in `reconstruct NAME OUTPUT`,
    in a run file. A file of that name in the current folder comes first.

    \b
    Examples:
      vemdiffuse datasets
      vemdiffuse datasets --json
    """
    if as_json:
        print_json({name: _facts(dataset) for name, dataset in datasets().items()})
    else:
        print_table({name: _dataset_text(dataset) for name, dataset in datasets().items()})


def _facts(dataset: Dataset) -> dict[str, object]:
    return {**dataset.model_dump(), "ratio": dataset.size_nm and float(exact_ratio(dataset.size_nm))}


def _dataset_text(dataset: Dataset) -> str:
    size = "voxel size not known here: its metadata states it"
    if dataset.size_nm is not None:
        size = f"voxels of {show_nm(dataset.size_nm)} nm: {show_ratio(dataset.size_nm)}"
    lines = [
        dataset.title,
        dataset.address or "to be downloaded, from the page below",
        *(f"also {address}" for address in dataset.also),
        size,
        f"licence: {dataset.licence or 'not known here'}; cite: {dataset.citation or 'not known here'}",
        f"page: {dataset.page or 'not known here'}",
    ]
    return "\n".join(lines)
