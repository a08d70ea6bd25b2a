"""handoff.json: what it says is what other programs find, wherever the folder lies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from handoff.test_pyramid import N_LEVELS, finished_run, read

from vemdiffuse_pipe import open_source
from vemdiffuse_pipe.handoff.export import ExportRequest, export
from vemdiffuse_pipe.handoff.napari import get_reader
from vemdiffuse_pipe.output.description import describe, write_manifest
from vemdiffuse_pipe.output.manifest import Handoff, schema
from vemdiffuse_pipe.output.run_output import open_run_output
from vemdiffuse_pipe.output.snippets import SNIPPETS, UNTESTED
from vemdiffuse_pipe.running.levels.pyramid import pyramid

RUNNABLE = [name for name in SNIPPETS if name not in UNTESTED and name != "neuroglancer"]
PACKAGES = {"ome-zarr": "ome_zarr", "ngff-zarr": "ngff_zarr", "bioio": "bioio", "cloud-volume": "cloudvolume"}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An output with a pyramid and a manifest, in a place to which it was moved."""
    folder = tmp_path_factory.mktemp("handed_on")
    made = finished_run(folder).output.url
    pyramid(made)
    write_manifest(open_run_output(made))
    moved = folder / "elsewhere" / "moved.zarr"
    moved.parent.mkdir()
    shutil.move(made, moved)
    return str(moved)


def manifest(output: str) -> Handoff:
    return Handoff.model_validate_json((Path(output) / "handoff.json").read_bytes())


def test_the_manifest_says_where_every_level_lies(output: str) -> None:
    found = manifest(output)
    levels = found.arrays["em"].levels
    assert len(levels) == N_LEVELS
    for level in levels:
        source = open_source(f"{output}/{level.path}")
        assert source.spec.shape == level.shape
        assert tuple(map(str, source.spec.frame.voxel_size_nm)) == level.voxel_size_nm
        assert tuple(map(str, source.spec.frame.corner_nm)) == level.corner_nm


def test_the_manifest_names_the_measured_planes(output: str) -> None:
    planes = manifest(output).planes
    assert [p.first for p in planes if p.origin == "measured"] == list(range(0, 31, 5))
    assert planes[-1].stop == 31


def test_nothing_in_the_manifest_is_absolute_but_the_source(output: str) -> None:
    found = manifest(output).model_dump(mode="json")
    del found["run"]
    assert "/tmp" not in json.dumps(found)


def test_equal_voxels_have_equal_checksums_whatever_the_blocks(tmp_path: Path) -> None:
    blocks = {"a": (8, 16, 16), "b": (8, 48, 32)}
    runs = [finished_run(tmp_path / name, run={"block_shape": shape}) for name, shape in blocks.items()]
    first, second = (describe(open_run_output(made.output.url)).arrays["em"] for made in runs)
    assert first.levels[0].checksum == second.levels[0].checksum


def test_the_schema_describes_every_field() -> None:
    published = schema()
    definitions = [published, *published["$defs"].values()]  # type: ignore[attr-defined]
    assert all(
        "description" in field or "default" in field
        for d in definitions
        for field in d["properties"].values()
    )


@pytest.mark.parametrize("reader", RUNNABLE)
def test_each_reader_finds_the_same_voxels(output: str, tmp_path: Path, reader: str) -> None:
    if reader in PACKAGES:
        pytest.importorskip(PACKAGES[reader], reason=f"{reader} is not installed")
    lines = SNIPPETS[reader].replace("OUTPUT", output)
    if "EXPORTED" in lines:
        export(output, str(tmp_path / "copy"), ExportRequest())
        lines = lines.replace("EXPORTED", str(tmp_path / "copy"))
    names: dict[str, object] = {}
    exec(lines, names)
    found = np.asarray(getattr(names["voxels"], "compute", lambda: names["voxels"])())
    assert np.array_equal(found, read(f"{output}/em"))


def test_a_run_that_is_complete_has_a_manifest(tmp_path: Path) -> None:
    made = finished_run(tmp_path).output.url
    assert manifest(made).is_complete
    assert len(manifest(made).arrays["em"].levels) == 1


def test_napari_gets_scale_and_translation_of_every_array(output: str) -> None:
    reader = get_reader(output)
    assert reader is not None
    ((data, attributes, kind),) = reader(output)
    frame = open_source(f"{output}/em").spec.frame
    assert (kind, len(data)) == ("image", N_LEVELS)
    assert np.array_equal(np.asarray(data[0]), read(f"{output}/em"))
    assert attributes["scale"] == [float(size) for size in frame.voxel_size_nm]
    assert attributes["translate"] == [float(centre) for centre in frame.centre_nm]
    assert get_reader(str(Path(output).parent)) is None
