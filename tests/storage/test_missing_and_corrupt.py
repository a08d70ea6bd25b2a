"""An absent chunk, a damaged one and a black one are three different things."""

import numpy as np
import pytest
import tifffile
from stored_volumes import (
    FORMATS,
    GIVEN,
    SHAPE,
    VOXELS,
    chunk_files,
    copied,
    cosem_transform,
    n5,
    ome_zarr_04,
    precomputed,
    tiff_folder,
)

from vemdiffuse_pipe.errors import CorruptDataError, DataError, MissingDataError, SourceError, VemdiffuseError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage import open_source

WHOLE = Box.of_shape(SHAPE)
STACKS = [stored for stored in FORMATS if stored.name.startswith("tiff") and stored.write is not tiff_folder]
CHUNKED = [
    stored
    for stored in FORMATS
    if not stored.name.startswith(("tiff", "mrc", "hdf5"))
    and "channel" not in stored.options  # the first chunk is another one's
]


def opened(path, stored, **options):
    return open_source(path / stored.inside, **stored.options, **options)


@pytest.mark.parametrize("stored", CHUNKED, ids=str)
class TestEveryChunkedSource:
    @pytest.fixture
    def path(self, stored, written, tmp_path):
        return copied(written(stored), tmp_path / "volume")

    def test_absent_chunk_is_missing_and_its_box_is_named(self, stored, path):
        chunk_files(path)[0].unlink()
        with pytest.raises(MissingDataError, match=r"\[0:11, 0:23, 0:37\]"):
            opened(path, stored).read(WHOLE)

    def test_absent_chunk_is_filled_where_asked(self, stored, path):
        chunk_files(path)[0].unlink()
        voxels = opened(path, stored, missing="fill").read(WHOLE)
        assert set(np.unique(voxels[voxels != VOXELS])) == {0}
        assert (voxels == VOXELS).any()

    def test_cut_chunk_is_corrupt(self, stored, path):
        chunk = chunk_files(path)[0]
        chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])
        with pytest.raises(CorruptDataError):
            opened(path, stored).read(WHOLE)

    def test_cut_chunk_is_not_filled(self, stored, path):
        chunk = chunk_files(path)[0]
        chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])
        with pytest.raises(CorruptDataError):
            opened(path, stored, missing="fill").read(WHOLE)

    def test_empty_chunk_is_not_black(self, stored, path):
        chunk_files(path)[0].write_bytes(b"")
        with pytest.raises(DataError):
            opened(path, stored).read(WHOLE)

    def test_other_chunks_are_still_read(self, stored, path):
        for chunk in chunk_files(path)[:-1]:
            chunk.unlink()
        source = opened(path, stored)
        seen = 0
        for z in range(SHAPE[0]):
            for y in range(SHAPE[1]):
                box = Box((z, y, SHAPE[2] - 1), (z + 1, y + 1, SHAPE[2]))
                try:
                    seen += int((source.read(box) == VOXELS[box.slices]).all())
                except MissingDataError:
                    continue
        assert seen > 0


def n5_with_size(path, voxels):
    n5(path, cosem_transform(), voxels)


@pytest.mark.parametrize("write", [ome_zarr_04, n5_with_size, precomputed])
def test_black_chunk_is_data(write, tmp_path):
    write(tmp_path / "black", voxels=np.zeros(SHAPE, np.uint8))
    assert (open_source(tmp_path / "black").read(WHOLE) == 0).all()


class TestFolderOfSections:
    @pytest.fixture
    def folder(self, tmp_path):
        tiff_folder(tmp_path / "sections")
        return tmp_path / "sections"

    def test_absent_number_is_a_missing_section(self, folder):
        (folder / "section_99.tif").unlink()
        source = open_source(folder, **GIVEN)
        assert source.spec.shape == SHAPE
        with pytest.raises(MissingDataError, match="section 4"):
            source.read(WHOLE)
        assert (source.read(Box((5, 0, 0), SHAPE)) == VOXELS[5:]).all()

    def test_absent_number_is_filled_where_asked(self, folder):
        (folder / "section_99.tif").unlink()
        voxels = open_source(folder, **GIVEN, missing="fill").read(WHOLE)
        assert (voxels[4] == 0).all()
        assert (np.delete(voxels, 4, 0) == np.delete(VOXELS, 4, 0)).all()

    def test_file_that_goes_away_is_missing(self, folder):
        source = open_source(folder, **GIVEN)
        (folder / "section_99.tif").unlink()
        with pytest.raises(MissingDataError):
            source.read(WHOLE)

    @pytest.mark.parametrize("other", [VOXELS[0, 1:], VOXELS[0].astype(np.uint16), VOXELS[:2]])
    def test_section_unlike_the_first_is_refused(self, folder, other):
        tifffile.imwrite(folder / "section_99.tif", other, metadata=None, photometric="minisblack")
        with pytest.raises(DataError, match="section_99"):
            open_source(folder, **GIVEN).read(WHOLE)

    def test_cut_file_is_corrupt(self, folder):
        path = folder / "section_99.tif"
        path.write_bytes(path.read_bytes()[:300])
        with pytest.raises(CorruptDataError):
            open_source(folder, **GIVEN).read(WHOLE)

    def test_numbers_may_go_up_in_steps(self, tmp_path):
        for z, section in enumerate(VOXELS):
            tifffile.imwrite(tmp_path / f"{z * 20}.tif", section)
        source = open_source(tmp_path, **GIVEN)
        assert (source.read(WHOLE) == VOXELS).all()

    def test_few_files_far_apart_are_refused(self, tmp_path):
        for z in (0, 1, 50):
            tifffile.imwrite(tmp_path / f"{z}.tif", VOXELS[0])
        with pytest.raises(SourceError, match="more than half are absent"):
            open_source(tmp_path, **GIVEN)


@pytest.mark.parametrize("stored", STACKS, ids=str)
class TestEveryStackFile:
    @pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
    def test_cut_file_never_passes_for_a_shorter_stack(self, stored, share, written, tmp_path):
        data = written(stored).read_bytes()
        (tmp_path / "cut.tif").write_bytes(data[: int(share * len(data))])
        with pytest.raises(VemdiffuseError):
            opened(tmp_path / "cut.tif", stored).read(WHOLE)


def test_damaged_page_leaves_the_others(tmp_path):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, VOXELS, compression="zlib", metadata=None)
    with tifffile.TiffFile(path) as file:
        start = file.pages[5].dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[start : start + 20] = b"\0" * 20
    path.write_bytes(data)
    source = open_source(path, voxel_size_nm=(40, 4.3, 4.3))
    with pytest.raises(CorruptDataError, match="section 5"):
        source.read(WHOLE)
    assert (source.read(Box((6, 0, 0), SHAPE)) == VOXELS[6:]).all()
