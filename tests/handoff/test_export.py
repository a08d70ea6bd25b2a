"""Exports: the voxels that other programs find, where they find them, whatever happens on the way."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from cloudvolume import CloudVolume
from handoff.test_manifest import manifest
from handoff.test_pyramid import CHUNK, finished_run, read
from run.small_runs import small_run

from vemdiffuse_pipe import open_source, run
from vemdiffuse_pipe.errors import OutputError, PlanError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import exact_nm
from vemdiffuse_pipe.handoff.export import EXPORT_FORMATS, ExportFormat, ExportRequest, export
from vemdiffuse_pipe.handoff.regions import box_of_region_nm
from vemdiffuse_pipe.records.parts import Part
from vemdiffuse_pipe.running.levels.downsample import coarser
from vemdiffuse_pipe.running.local.runner import LocalRunner

PART = Box((3, 5, 7), (26, 34, 51))


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    return finished_run(tmp_path_factory.mktemp("exported")).output.url


def destination(folder: Path, image_format: ExportFormat) -> str:
    return str(folder / ("copy.tif" if image_format == "tiff" else "copy"))


@pytest.mark.parametrize("image_format", EXPORT_FORMATS)
def test_a_part_is_exported_voxel_by_voxel_and_to_its_place(
    output: str, tmp_path: Path, image_format: ExportFormat
) -> None:
    copy = destination(tmp_path, image_format)
    made = export(output, copy, ExportRequest(box=PART, image_format=image_format))
    source = open_source(copy)
    assert made.outcome.is_complete
    stated = manifest(f"{copy}.vemdiffuse" if image_format == "tiff" else copy)
    assert stated.exported is not None
    assert (stated.exported.start, stated.exported.stop) == (PART.start, PART.stop)
    assert stated.exported.moved_nm == made.moved_nm
    assert len(stated.arrays["em"].levels) == made.n_levels
    assert stated.planes[-1].stop == PART.shape[0]
    assert np.array_equal(read(copy), read(f"{output}/em")[PART.slices])
    expected = open_source(f"{output}/em").spec.frame.cropped(PART)
    assert np.allclose(*(list(map(float, f.voxel_size_nm)) for f in (source.spec.frame, expected)))
    if image_format != "tiff":  # a stack of ImageJ has no corner
        off = zip(source.spec.frame.corner_nm, expected.corner_nm, made.moved_nm, strict=True)
        assert all(abs(float(found - wanted) - moved) < 1e-3 for found, wanted, moved in off)


@pytest.mark.parametrize("encoding", ["raw", "png"])
@pytest.mark.parametrize("is_sharded", [True, False])
def test_cloud_volume_finds_the_same_voxels(
    output: str, tmp_path: Path, encoding: str, is_sharded: bool
) -> None:
    if encoding == "png":
        pytest.importorskip("pyspng", reason="cloud-volume reads png with pyspng")
    request = ExportRequest(encoding=encoding, is_sharded=is_sharded)  # type: ignore[arg-type]
    export(output, str(tmp_path / "copy"), request)
    volume = CloudVolume(f"precomputed://file://{tmp_path}/copy", progress=False)
    assert np.array_equal(np.asarray(volume[:, :, :])[..., 0].T, read(f"{output}/em"))


def test_jpeg_is_only_for_grey_levels_and_loses_little(output: str, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy")
    made = export(output, copy, ExportRequest(encoding="jpeg"))
    off = np.abs(read(copy).astype(int) - read(f"{output}/em"))
    stated = manifest(copy).exported
    assert stated is not None
    assert (stated.largest_error, stated.n_compared) == (off.max(), off.size)
    assert stated.mean_error == made.mean_error == pytest.approx(off.mean())
    assert off.max() <= 64
    assert "jpeg" in (tmp_path / "copy" / "info").read_text()


def test_zarr_python_finds_the_levels(output: str, tmp_path: Path) -> None:
    export(output, str(tmp_path / "copy"), ExportRequest(image_format="ome-zarr-0.4", n_levels=2))
    group = zarr.open_group(str(tmp_path / "copy"), mode="r")
    level_0 = read(f"{output}/em")
    assert np.array_equal(group["0"][...], level_0)
    assert np.array_equal(group["1"][...], coarser(level_0, "mean"))


def test_a_folder_of_sections_has_one_file_a_plane(output: str, tmp_path: Path) -> None:
    export(output, str(tmp_path / "sections"), ExportRequest(image_format="tiff"))
    files = sorted((tmp_path / "sections").glob("z*.tif"))
    assert [file.name for file in files[:2]] == ["z0000.tif", "z0001.tif"]
    assert np.array_equal(np.stack([tifffile.imread(file) for file in files]), read(f"{output}/em"))


def test_fiji_reads_nanometres(output: str, tmp_path: Path) -> None:
    export(output, str(tmp_path / "copy.tif"), ExportRequest(image_format="tiff"))
    with tifffile.TiffFile(tmp_path / "copy.tif") as file:
        metadata = file.imagej_metadata
    assert metadata is not None
    assert metadata["unit"] == "nm"
    assert metadata["spacing"] == pytest.approx(
        float(open_source(f"{output}/em").spec.frame.voxel_size_nm[0])
    )


@pytest.mark.parametrize("image_format", ["precomputed", "tiff"])
def test_an_export_that_stopped_is_resumed_by_parts(
    output: str, tmp_path: Path, image_format: ExportFormat
) -> None:
    copy, request = destination(tmp_path, image_format), ExportRequest(image_format=image_format)
    stopped = export(output, copy, request, runner=lambda: LocalRunner(max_blocks=0))
    assert not stopped.outcome.is_complete
    for part in (2, 1):
        export(output, copy, request, runner=partial(LocalRunner, Part(part, 2)))
    assert np.array_equal(read(copy), read(f"{output}/em"))
    again = export(output, copy, request)
    assert again.outcome.n_rendered == 0


def test_another_export_on_the_same_place_is_refused_by_name(output: str, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy")
    export(output, copy, ExportRequest())
    with pytest.raises(OutputError, match="encoding raw -> png"):
        export(output, copy, ExportRequest(encoding="png"))


@pytest.mark.parametrize("image_format", ["n5", "tiff"])
def test_nothing_that_is_there_is_written_over(
    output: str, tmp_path: Path, image_format: ExportFormat
) -> None:
    copy = Path(destination(tmp_path, image_format))
    if image_format == "tiff":
        copy.write_bytes(b"mine")
    else:
        copy.mkdir()
        (copy / "mine").write_bytes(b"mine")
    with pytest.raises(OutputError, match="nothing is ever written over"):
        export(output, str(copy), ExportRequest(image_format=image_format))
    assert any(file.read_bytes() == b"mine" for file in [copy, *copy.glob("mine")] if file.is_file())


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ExportRequest(array="labels"), "has no array labels; it has em"),
        (ExportRequest(box=Box((0, 0, 0), (99, 9, 9))), "is not inside"),
        (ExportRequest(image_format="n5", encoding="png"), "n5 has no encoding png"),
        (ExportRequest(encoding="compressed_segmentation"), "holds labels"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(
    output: str, tmp_path: Path, request_: ExportRequest, message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        export(output, str(tmp_path / "copy"), request_)
    assert not any(tmp_path.iterdir())


def test_an_output_that_lacks_blocks_is_not_exported(tmp_path: Path) -> None:
    run_file = small_run(tmp_path, output=CHUNK)
    run(run_file, max_blocks=3)
    with pytest.raises(OutputError, match="lacks 21 of 24 blocks"):
        export(run_file.output.url, str(tmp_path / "copy"), ExportRequest())


def test_a_region_in_nanometres_is_widened_to_whole_voxels(output: str) -> None:
    frame = open_source(f"{output}/em").spec.frame
    start = [
        float(c + s * n) for c, s, n in zip(frame.corner_nm, frame.voxel_size_nm, (3, 5, 7), strict=True)
    ]
    stop = [
        float(c + s * n) for c, s, n in zip(frame.corner_nm, frame.voxel_size_nm, (26, 34, 51), strict=True)
    ]
    eps = 1e-3
    found = box_of_region_nm(output, exact_nm([v + eps for v in start]), exact_nm([v - eps for v in stop]))
    assert found == PART


def test_a_partial_export_holds_what_is_there_and_says_so(tmp_path: Path) -> None:
    run_file = small_run(tmp_path, output=CHUNK)
    run(run_file, max_blocks=3)
    copy, request = str(tmp_path / "copy"), ExportRequest(image_format="n5", is_partial=True)
    assert export(run_file.output.url, copy, request).outcome.is_complete
    stated = manifest(copy)
    assert stated.exported is not None
    assert stated.exported.is_partial
    assert not stated.is_complete
    run(run_file)
    whole = read(f"{run_file.output.url}/em")
    copied = read(copy)
    assert np.array_equal(copied[copied > 0], whole[copied > 0])
    assert 0 < (copied > 0).mean() < 0.5
    with pytest.raises(OutputError, match="blocks that are missing"):
        export(run_file.output.url, copy, request)
