"""--channel, --series and --pattern: the voxels that are meant, in every command that opens a source."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tifffile

from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage import open_source
from vemdiffuse_pipe.testing import position_coded

SIZE = ("--voxel-size", "16", "8", "8")
IMAGES = position_coded((2, 4, 24, 32))
CHOICES = [
    ("ch", ("--pattern", "z{z}_c1.tif")),
    ("two.tif", ("--series", "1")),
    ("c.tif", ("--channel", "1")),
]


@pytest.fixture
def volumes(tmp_path, monkeypatch):
    """Two images: as channels of a folder of sections, as series of a file, and as channels of one."""
    monkeypatch.chdir(tmp_path)
    Path("ch").mkdir()
    for z in range(4):
        for c in range(2):
            tifffile.imwrite(f"ch/z{z * 5:02}_c{c}.tif", IMAGES[c, z])
    with tifffile.TiffWriter("two.tif") as file:
        file.write(IMAGES[0], metadata=None, photometric="minisblack")
        file.write(IMAGES[1], metadata=None, photometric="minisblack", compression="zlib")
    tifffile.imwrite("c.tif", IMAGES.transpose(1, 0, 2, 3), imagej=True, metadata={"axes": "ZCYX"})


@pytest.mark.parametrize(("source", "choice"), CHOICES, ids=lambda v: v if isinstance(v, str) else "")
def test_voxels_that_are_meant_reach_the_output(source, choice, volumes, vemdiffuse):
    refused = vemdiffuse("inspect", source)
    assert refused.code == 2
    assert choice[0] in refused.stderr
    assert vemdiffuse("inspect", source, *choice).code == 0
    file = vemdiffuse("init", source, "out.zarr", *SIZE, *choice).stdout
    stated = tomllib.loads(file)["source"]
    assert str(stated[choice[0].strip("-")]) == choice[1]
    command = ("reconstruct", source, "out.zarr", *SIZE, *choice, "--model", "linear")
    assert vemdiffuse(*command).code == 0
    em = open_source("out.zarr/em")
    assert np.array_equal(em.read(Box.of_shape(em.spec.shape))[::2], IMAGES[1])
    assert vemdiffuse(*command).code == 0  # the run file beside the output says the same
    other = [*choice[:1], choice[1].replace("1", "0")]
    again = vemdiffuse("reconstruct", source, "out.zarr", *SIZE, *other, "--model", "linear")
    assert again.code == 2


def test_inspect_prints_how_a_folder_is_numbered(volumes, vemdiffuse):
    Path("ch/z05_c1.tif").unlink()
    choice = CHOICES[0][1]
    assert "3 files, numbered 0 to 15, step 5, 1 absent" in vemdiffuse("inspect", "ch", *choice).stdout
    facts = json.loads(vemdiffuse("inspect", "ch", *choice, "--json").stdout)["files"]
    assert facts == {"first": 0, "last": 15, "step": 5, "count": 3, "absent": 1}


@pytest.mark.parametrize(
    ("source", "choice"), [("ch", ("--series", "0")), ("c.tif", ("--pattern", "{z}.tif"))], ids=["ch", "file"]
)
def test_choice_that_means_nothing_here_is_refused(source, choice, volumes, vemdiffuse):
    ended = vemdiffuse("inspect", source, *choice)
    assert ended.code == 2
    assert "leave it out" in ended.stderr
