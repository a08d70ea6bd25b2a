"""Files of other programs decode to the values that those programs gave them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.storage import open_source

FIXTURES = Path(__file__).parents[2] / ".." / "shared" / "data" / "interop"
NM = {"voxel_size_nm": (5, 5, 5)}
AS_IT_IS = {"window": (0, 255)}  # no value of these is larger than 255

pytestmark = pytest.mark.skipif(
    not FIXTURES.is_dir(), reason="the files in ../shared/data/interop are absent"
)

VOLUMES = {
    "n5-bdv-mobie/segmentation.n5/setup0/timepoint0/s0": NM | AS_IT_IS | {"missing": "fill"},
    "n5-bdv-mobie/segmentation.n5/setup0/timepoint0/s1": NM | AS_IT_IS | {"missing": "fill"},
    "omezarr0.4-mobie-java/mri-stack.ome.zarr/s0": NM,
    "omezarr0.4-mobie-java/mri-stack.ome.zarr/s1": NM,
    "zarr2-n5zarr/dimensionOrder.zarr/c-order": NM,
    "zarr2-n5zarr/dimensionOrder.zarr/f-order": NM,
    "precomputed-webknossos/simple_ng_dataset2/color": {},
}


@pytest.fixture(scope="module")
def manifest():
    entries = json.loads((FIXTURES / "manifest.json").read_text())["arrays"]
    return {entry["path"]: entry for entry in entries}


@pytest.mark.parametrize("path", VOLUMES)
def test_volume_decodes_to_the_listed_values(path, manifest):
    entry = manifest[path]
    source = open_source(FIXTURES / path, **VOLUMES[path])
    voxels = source.read(source.spec.frame.box)
    assert list(voxels.shape) == entry["shape"][-3:]
    stored = voxels.astype(np.dtype(entry["dtype"]).newbyteorder("<"))
    assert hashlib.sha256(stored.tobytes()).hexdigest() == entry["sha256"]


def test_every_other_array_is_refused_in_a_sentence(manifest):
    others = [path for path, entry in manifest.items() if path not in VOLUMES and entry["sha256"]]
    assert len(others) > 50
    for path in others:
        with pytest.raises(SourceError) as caught:
            open_source(FIXTURES / path, **NM)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "levels"),
    [
        ("n5-bdv-mobie/segmentation.n5/setup0", {"s0": (256,) * 3, "s1": (128,) * 3}),
        ("omezarr0.4-mobie-java/mri-stack.ome.zarr", {"s0": (27, 226, 186), "s1": (13, 113, 93)}),
    ],
)
def test_group_has_its_levels(path, levels):
    for name, shape in levels.items():
        options = NM | (AS_IT_IS if "n5" in path else {})
        source = open_source(FIXTURES / path, level=name, **options)
        assert source.spec.shape == shape
        assert source.spec.n_levels == len(levels)
