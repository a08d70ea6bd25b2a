"""A volume in a zip archive is read where it is: at the top, in the only folder, or by a path into it."""

import zipfile

import numpy as np
import pytest
from servers import needs_nginx, nginx
from stored_volumes import FORMATS, FRAME, SHAPE, VOXELS

from vemdiffuse_pipe.errors import CorruptDataError, MissingDataError, SourceError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage import open_source

WHOLE = Box.of_shape(SHAPE)
CHUNKED = [s for s in FORMATS if s.name.startswith(("ome-zarr", "zarr", "n5", "precomputed"))]
BY_NAME = {stored.name: stored for stored in FORMATS}


def archive(folder, path, top="", method=zipfile.ZIP_STORED, leave_out=()):
    with zipfile.ZipFile(path, "w", method) as file:
        for stored in sorted(folder.rglob("*")):
            if stored.is_file() and stored.name not in leave_out:
                file.write(stored, f"{top}{stored.relative_to(folder)}")
    return path


@pytest.mark.parametrize("stored", CHUNKED, ids=str)
@pytest.mark.parametrize(
    ("name", "top", "method"),
    [("em.ozx", "", zipfile.ZIP_STORED), ("any name", "em.zarr/", zipfile.ZIP_DEFLATED)],
)
def test_volume_in_an_archive_is_the_volume(stored, name, top, method, written, tmp_path):
    path = archive(written(stored), tmp_path / name, top, method)
    inside = f"/{top}{stored.inside}" if stored.inside else ""
    source = open_source(f"{path}{inside}", **stored.options)
    assert source.spec.frame == FRAME
    np.testing.assert_array_equal(source.read(WHOLE), VOXELS)
    assert open_source(source.spec.url, **stored.options).spec == source.spec


@needs_nginx
@pytest.mark.parametrize("name", ["ome-zarr-0.4", "ome-zarr-0.5-sharded", "n5-cosem"])
def test_volume_in_an_archive_is_read_over_http(name, written, tmp_path):
    (tmp_path / "www").mkdir()
    archive(written(BY_NAME[name]), tmp_path / "www" / "em.zarr.zip")
    with nginx(tmp_path / "www", tmp_path / "nginx") as url:
        np.testing.assert_array_equal(open_source(f"{url}/em.zarr.zip").read(WHOLE), VOXELS)


def test_absent_and_damaged_chunks_are_what_they_are_in_a_folder(written, tmp_path):
    folder = written(BY_NAME["n5-cosem"])
    path = archive(folder, tmp_path / "em.zip", leave_out=("0",))
    with pytest.raises(MissingDataError):
        open_source(path).read(WHOLE)
    data = bytearray(archive(folder, path, method=zipfile.ZIP_DEFLATED).read_bytes())
    with zipfile.ZipFile(path) as file:
        last = next(info for info in file.infolist() if info.filename == "s0/1/1/1")
    data[last.header_offset + 60 : last.header_offset + 70] = b"\xff" * 10
    path.write_bytes(data)
    with pytest.raises((CorruptDataError, MissingDataError)):
        open_source(path).read(WHOLE)


def test_an_archive_without_a_volume_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("notes.txt", "no volume")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:40])
    for name in ("a.zip", "cut.zip"):
        with pytest.raises(SourceError):
            open_source(tmp_path / name)
