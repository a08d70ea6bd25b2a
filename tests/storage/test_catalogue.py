"""Public volumes by name: the list holds, names resolve, and what lies on the disk comes first."""

from contextlib import suppress

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from vemdiffuse_pipe.errors import ConfigError, SourceError
from vemdiffuse_pipe.storage import open_source, parse_address, source_address
from vemdiffuse_pipe.storage.catalogue import datasets

OPENED = [name for name, dataset in datasets().items() if dataset.address]


def test_the_volumes_of_the_papers_are_listed():
    assert set(datasets()) == {
        "jrc_mus-kidney",
        "jrc_mus-liver",
        "jrc_ctl-id8-2",
        "microns",
        "fanc",
        "manc",
        "epfl",
    }


@pytest.mark.parametrize("name", datasets())
def test_every_address_is_one_and_none_is_local(name):
    dataset = datasets()[name]
    for url in (dataset.address, *dataset.also):
        assert url is None or not parse_address(url).is_local
    assert dataset.page is None or dataset.page.startswith("https://")
    assert dataset.address or dataset.page


@pytest.mark.parametrize("name", OPENED)
def test_a_name_is_the_address_of_its_volume(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert source_address(name) == parse_address(datasets()[name].address)


def test_what_lies_on_the_disk_under_a_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    voxels = np.arange(2 * 5 * 7, dtype=np.uint8).reshape(2, 5, 7)
    tifffile.imwrite("microns", voxels, photometric="minisblack")
    source = open_source("microns", voxel_size_nm=(40, 8, 8))
    assert source.spec.url == str(tmp_path / "microns")
    np.testing.assert_array_equal(source.read(source.spec.frame.box), voxels)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("micron", "microns"), ("MICrONS", "microns"), ("jrc_mus_kidney", "jrc_mus-kidney"), ("fancy", "fanc")],
)
def test_a_name_that_is_nearly_one_is_told_which(name, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=f"did you mean {meant}\\?"):
        open_source(name)


def test_a_name_that_is_near_none_is_a_path_that_does_not_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=r"stack\.tif does not exist"):
        open_source("stack.tif")


def test_a_volume_that_must_be_downloaded_says_where_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=r"download it from https://www\.epfl\.ch"):
        open_source("epfl")


@given(st.text(max_size=300) | st.builds(str.__mul__, st.text(min_size=1, max_size=3), st.integers(0, 9000)))
def test_any_text_is_an_address_or_refused_in_a_sentence(text):
    with suppress(ConfigError, SourceError):
        source_address(text)
